from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def ingest_scope(database: None) -> Iterator[None]:
    """As tasks and the command have it."""
    from tenants.scope import role_scope

    with role_scope("ingest"):
        yield
