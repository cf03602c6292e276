"""A real small model behind the gateway, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings

from devstack.datadir import DataDir
from devstack.model_server import KEY_VARIABLE, MODEL_NAME, ModelServer
from tests.clients.real_model import RealModel


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
