"""Calls of a measurement that are not served."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from models_catalog.engines import ADAPTERS
from models_catalog.fleet.commission.calls import Caller, Sample, Target

TARGET = Target("http://127.0.0.1:9", ADAPTERS["generic"], "m")


def failing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Sample:
    async def fail(*_: object) -> Sample:
        raise error

    monkeypatch.setattr(Caller, "_call", fail)
    return asyncio.run(Caller(TARGET).call("hello", output_tokens=1))


def test_a_connection_that_takes_too_long_is_the_backends_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the end of the time of the measurement, which others of the same level would outlive."""
    assert failing(aiohttp.ServerTimeoutError(), monkeypatch).failure == "ServerTimeoutError"


def test_the_end_of_the_time_is_no_failure_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError):
        failing(TimeoutError(), monkeypatch)
