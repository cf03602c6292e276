"""A stored credential goes to the server that it was given for: naming another one does not read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings

from models_catalog.fleet import operations
from models_catalog.fleet.operations import BackendEntry, CredentialNeeded
from models_catalog.fleet.tests.rows import make_backend, make_pool
from models_catalog.models import ServingBackend
from models_catalog.tests.price_drafts import undone
from portal.kit.secrets import SecretStore
from tenants.operations import audit

pytestmark = pytest.mark.usefixtures("database")

BY: dict[str, Any] = {"actor": audit.SYSTEM, "reason": "for the test"}


def secrets() -> SecretStore:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


def entry_of(backend: ServingBackend) -> BackendEntry:
    names = BackendEntry.__dataclass_fields__
    return BackendEntry(**{name: getattr(backend, name) for name in names})


@pytest.mark.parametrize(
    ("address", "is_elsewhere"),
    [
        ("https://engine.example", False),
        ("https://ENGINE.example:443/below", False),
        ("https://engine.example:8443", True),
        ("http://engine.example", True),
        ("https://elsewhere.example", True),
        ("https://engine.example.elsewhere.example", True),
    ],
)
def test_another_server_needs_the_credential_anew(address: str, is_elsewhere: bool) -> None:
    with undone():
        backend = make_backend(
            make_pool(), base_url="https://engine.example", credential_encrypted=secrets().encrypt("first")
        )
        moved = replace(entry_of(backend), base_url=address)
        if is_elsewhere:
            with pytest.raises(CredentialNeeded):
                operations.save_backend(entry=moved, backend_id=backend.id, secrets=secrets(), **BY)
            backend.refresh_from_db()
            assert backend.base_url == "https://engine.example"
        given = "second" if is_elsewhere else None
        operations.save_backend(entry=moved, backend_id=backend.id, secrets=secrets(), credential=given, **BY)
        backend.refresh_from_db()
        expected = "second" if is_elsewhere else "first"
        assert (backend.base_url, secrets().decrypt(backend.credential_encrypted)) == (address, expected)


@pytest.mark.parametrize("credential", ["", "other"])
def test_without_the_old_credential_it_moves_anywhere(credential: str) -> None:
    with undone():
        backend = make_backend(make_pool(), credential_encrypted=secrets().encrypt("first"))
        moved = replace(entry_of(backend), base_url="https://elsewhere.example")
        operations.save_backend(
            entry=moved, backend_id=backend.id, secrets=secrets(), credential=credential, **BY
        )
        backend.refresh_from_db()
        stored = backend.credential_encrypted
        assert (secrets().decrypt(stored) if stored else "") == credential
