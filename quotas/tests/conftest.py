"""An organization, a model it may use, and a connection of the data plane.

Imports are inside: this file may be read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.factories import ModelFixture, TenantFixture


@pytest.fixture(scope="session")
def model(database: None) -> ModelFixture:
    """A dollar model at the default price: 1,000 nano-units an input token, 2,000 an output token."""
    from tests.factories import make_model

    return make_model()


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    """A new organization with one dollar of granted credit that has picked `model`."""
    from tests.factories import enable, make_tenant

    made = make_tenant()
    enable(made, model)
    return made


@pytest.fixture
def dataplane(database: None) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the data plane's role, each statement its own transaction."""
    from tests.database import connected

    with connected("dataplane") as connection:
        yield connection
