"""A stand-in of Stripe for the tests of payments, over HTTP, with nothing in between.

Imports are inside: this file may be read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devstack.stripe_standin.testing import Standin


@pytest.fixture(scope="session")
def shared_standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    from devstack.stripe_standin.testing import running_standin

    with running_standin(tmp_path_factory.mktemp("stripe")) as running:
        yield running


@pytest.fixture
def standin(shared_standin: Standin, database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """It is the Stripe of this installation, does what it is asked, and tells nobody by itself."""
    from quotas.payments.tests.stripe_side import configure

    configure(monkeypatch, shared_standin)
    yield shared_standin
    shared_standin.control.chaos()
    shared_standin.control.settings(tax_percent=0.0)
