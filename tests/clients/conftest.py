"""A real small model and simulated engines behind the gateway, each started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from devstack.client_sdks import NodeClients, install_node_clients
from devstack.datadir import DataDir
from devstack.engines.testing import RunningEngine, start_engine
from devstack.model_server import KEY_VARIABLE, MODEL_NAME, ModelServer
from tests.clients.real_model import RealModel
from tests.gateway_process import RunningGateway

if TYPE_CHECKING:
    from tests.clients.simulated import Scene


@pytest.fixture(scope="session")
def real_model(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealModel]:
    # Models can be imported only once Django is set up, which is after this file is read.
    from models_catalog.models import ServingBackend
    from tenants.scope import role_scope
    from tests.factories import make_backend

    folder = DataDir(tmp_path_factory.mktemp("model"))
    folder.create()
    server = ModelServer(folder, port_seed=23_000)
    try:
        server.start()
        key = server.environment()[KEY_VARIABLE]
        backend_id = make_backend(engine="llamacpp", base_url=server.url)
        assert settings.SECRET_STORE is not None
        with role_scope("operator"):
            ServingBackend.objects.filter(id=backend_id).update(
                credential_encrypted=settings.SECRET_STORE.encrypt(key)
            )
        yield RealModel(server.url, key, backend_id, MODEL_NAME)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def simulator() -> Iterator[RunningEngine]:
    """One engine that speaks every endpoint."""
    with start_engine("vllm", tokens_per_s=0, embeddings=True) as engine:
        yield engine


@pytest.fixture
def scene(gateway: RunningGateway, simulator: RunningEngine) -> Scene:
    from tests.clients.simulated import PRICES, Scene
    from tests.factories import enable, make_backend, make_model, make_tenant

    simulator.wait_idle()
    simulator.reset()
    model = make_model(
        backend_id=make_backend(engine="vllm", base_url=simulator.url),
        upstream_model="sim-model",
        prices=PRICES,
        context_tokens=8192,
        max_output_tokens=2048,
        capabilities=["chat", "embeddings", "json_schema", "logprobs", "tools", "vision"],
        image_allowance_tokens=1024,
    )
    tenant = make_tenant()
    enable(tenant, model)
    return Scene(gateway, simulator, tenant, model)


@pytest.fixture(scope="session")
def node_clients() -> NodeClients:
    """Node, and the clients that are written for it."""
    return install_node_clients()
