"""The official OpenAI client for Node, in a process of its own."""

from __future__ import annotations

import json

from devstack.client_sdks import NodeClients
from tests.clients.simulated import Scene


def test_the_examples_run_unchanged(node_clients: NodeClients, scene: Scene) -> None:
    done = node_clients.run(
        "openai.mjs",
        {
            "OPENAI_BASE_URL": scene.gateway.api_base,
            "OPENAI_API_KEY": scene.token,
            "MODEL": scene.model.slug,
        },
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "plain": ["w1 w2 w3", 3, True],
        "stream": ["w1 w2 w3 w4", 4],
        "tools": " ".join(f"w{number}" for number in range(1, 17)),
        "called": ["Sunny in city."],
        "streamedTool": ["get_weather", {"city": "city"}],
        "embeddings": [[8, 8], 3],
        "response": ["w1 w2 w3", 3],
        "responseStream": "w1 w2 w3",
        "completion": "w1 w2",
        "models": [True],
        "error": [True, "model_not_found", True],
    }
    scene.settled(9)
