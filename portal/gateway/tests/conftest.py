"""Engines and gateways that the gateway's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, start_engine
from tests.gateway_process import RunningGateway, running_gateway


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, RunningEngine]]:
    """One unpaced simulator of each flavour."""
    with ExitStack() as stack:
        yield {flavour: stack.enter_context(start_engine(flavour, tokens_per_s=0)) for flavour in FLAVOURS}


@pytest.fixture(scope="session")
def impatient_gateway(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that waits a second for bodies, first bytes and further bytes."""
    with running_gateway(
        tmp_path_factory.mktemp("impatient"),
        SLUICE_BODY_TIMEOUT_S="1",
        SLUICE_FIRST_BYTE_TIMEOUT_S="1",
        SLUICE_IDLE_TIMEOUT_S="1",
    ) as running:
        yield running
