from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture(autouse=True)
def near(database: None) -> None:
    """Nobody but what the tests start is sampled."""
    from tests.factories import disable_distant_backends

    disable_distant_backends()


@pytest.fixture
def dataplane(database: None) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the data plane's role, each statement its own transaction."""
    from tests.database import connected

    with connected("dataplane") as connection:
        yield connection
