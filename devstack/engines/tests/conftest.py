"""Unpaced engines, one of each flavour for the whole session, with empty books for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from devstack.engines.options import Flavour
from devstack.engines.testing import RunningEngine, start_engine

CONTEXT_TOKENS = 2048


@pytest.fixture(scope="session")
def _shared_engines() -> Iterator[Callable[[Flavour], RunningEngine]]:
    running: dict[Flavour, RunningEngine] = {}

    def get(flavour: Flavour) -> RunningEngine:
        if flavour not in running:
            running[flavour] = start_engine(flavour, tokens_per_s=0, context=CONTEXT_TOKENS)
        return running[flavour]

    yield get
    for engine in running.values():
        engine.stop()


@pytest.fixture
def engine_of(_shared_engines: Callable[[Flavour], RunningEngine]) -> Callable[[Flavour], RunningEngine]:
    """A running engine of a flavour; whatever another test left open is over, and its books are empty."""

    def get(flavour: Flavour) -> RunningEngine:
        engine = _shared_engines(flavour)
        engine.wait_idle()
        engine.reset()
        return engine

    return get


@pytest.fixture
def llamacpp(engine_of: Callable[[Flavour], RunningEngine]) -> RunningEngine:
    return engine_of("llamacpp")


@pytest.fixture
def vllm(engine_of: Callable[[Flavour], RunningEngine]) -> RunningEngine:
    return engine_of("vllm")


@pytest.fixture
def sglang(engine_of: Callable[[Flavour], RunningEngine]) -> RunningEngine:
    return engine_of("sglang")


@pytest.fixture
def generic(engine_of: Callable[[Flavour], RunningEngine]) -> RunningEngine:
    return engine_of("generic")
