"""The fixtures of the tests of quotas: an organization, a model it may use, the data plane's connection.

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
    from tests.factories import make_model

    return make_model()


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    from tests.factories import enable, make_tenant

    made = make_tenant()
    enable(made, model)
    return made


@pytest.fixture
def dataplane(database: None) -> Iterator[psycopg.Connection[Any]]:
    from tests.database import connected

    with connected("dataplane") as connection:
        yield connection
