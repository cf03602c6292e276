"""Engines that the playground's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from devstack.engines.testing import RunningEngine, start_engine
from tests.web_process import RunningWeb

if TYPE_CHECKING:
    # Has models in it, which can be imported only once Django is set up.
    from portal.playground.tests.stage import Stage


@pytest.fixture(scope="session")
def fast_engine() -> Iterator[RunningEngine]:
    """Answers as fast as it can."""
    with start_engine("llamacpp", tokens_per_s=0) as engine:
        yield engine


@pytest.fixture(scope="session")
def slow_engine() -> Iterator[RunningEngine]:
    """One that a person can leave in the middle: 100 tokens a second."""
    with start_engine("vllm", tokens_per_s=100) as engine:
        yield engine


@pytest.fixture
def stage(web: RunningWeb, fast_engine: RunningEngine) -> Stage:
    from portal.playground.tests.stage import make_stage

    return make_stage(web, fast_engine.url, flavour="llamacpp")


@pytest.fixture
def slow_stage(web: RunningWeb, slow_engine: RunningEngine) -> Stage:
    from portal.playground.tests.stage import make_stage

    return make_stage(web, slow_engine.url, flavour="vllm")
