"""A simulated SGLang as a service of `make run`, so that reconciliation is seen at work without a GPU.

It writes SGLang's request log below the data folder, and now and then something goes wrong with it: lines are
lost, doubled or garbage, an answer tells a wrong number, somebody bypasses the gateway. What it really did
stands in its books, beside the feed.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from devstack import ports
from devstack.datadir import private_folder
from devstack.packages import REPOSITORY
from devstack.probe import answers_ok
from devstack.process import Launch, bare_environment
from devstack.service import Service

MODEL_NAME = "simulated"
KEY_VARIABLE = "DEVSTACK_SIMULATED_KEY"
FAULTS = "seed=1,lost=0.02,doubled=0.04,garbage=0.02,rotate=0.02,wrong_usage=0.04,foreign=0.02"
_CONTEXT_TOKENS = 8192
_SLOTS = 16


class SimulatedEngine(Service):
    """Behind /v1 and /metrics, on loopback, with a Bearer key; its tokens are `w1 w2 w3 …`."""

    name = "simulated"
    slot = 4
    start_timeout_s = 60.0
    stop_patience_s = 5.0
    _key = ""

    @property
    def title(self) -> str:
        return "Simulated engine (SGLang's ways, no model)"

    @property
    def url(self) -> str:
        return f"http://{ports.HOST}:{self.port}"

    @property
    def feed_folder(self) -> Path:
        return self.data_dir.root / "feeds" / "simulated-sglang"

    def environment(self) -> dict[str, str]:
        return {
            "DEVSTACK_SIMULATED_URL": self.url,
            KEY_VARIABLE: self._key,
            "DEVSTACK_SIMULATED_FEED": str(self.feed_folder),
        }

    def _prepare(self) -> None:
        self._key = self.data_dir.recall(self.name).get("key") or secrets.token_urlsafe(24)
        self.data_dir.remember(self.name, key=self._key)
        private_folder(self.feed_folder.parent)
        private_folder(self.feed_folder)

    def _launch(self) -> Launch:
        argv: list[str | Path] = [
            *(sys.executable, "-m", "devstack.engines", "--flavour", "sglang", "--port", str(self.port)),
            *("--model", MODEL_NAME, "--context", str(_CONTEXT_TOKENS), "--slots", str(_SLOTS)),
            *("--shutdown", "drain", "--feed-dir", self.feed_folder, "--feed-faults", FAULTS),
            *("--books-file", self.feed_folder.parent / "simulated-sglang-books.jsonl"),
        ]
        env = {**bare_environment(), "ENGINE_API_KEY": self._key}
        return Launch(argv=argv, env=env, cwd=REPOSITORY)

    def _is_ready(self) -> bool:
        return answers_ok(f"{self.url}/health")

    def _finish(self) -> None:
        return

    def _clean_up(self) -> None:
        return
