from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def near(database: None) -> None:
    """Nobody but what the tests start is sampled."""
    from tests.factories import disable_distant_backends

    disable_distant_backends()
