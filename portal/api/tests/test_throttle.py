"""How often a key may call, and what happens without Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import override_settings
from redis import RedisError

from portal.api import throttle
from portal.api.tests.stage import open_stage, problem_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def slow() -> Iterator[None]:
    with override_settings(TUNING={**settings.TUNING, "SLUICE_API_LIMIT_RPM": 3}):
        yield


def test_a_key_is_counted_and_told(slow: None) -> None:
    stage = open_stage()
    left = []
    for _ in range(3):
        answer = stage.program.get("/organization")
        assert answer.status_code == 200
        assert answer["RateLimit-Policy"] == '"key";q=3;w=60'
        left.append(answer["RateLimit"].split(";")[1])
    assert left == ["r=2", "r=1", "r=0"]
    answer = stage.program.get("/organization")
    problem_of(answer, 429, "rate-limited")
    assert 0 < int(answer["Retry-After"]) <= 20
    assert answer["RateLimit"].startswith('"key";r=0;t=')
    # Another key of the same organization has a rate of its own.
    assert stage.with_key().get("/organization").status_code == 200


def test_without_valkey_nobody_is_held_up(slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = open_stage()
    asked = []

    def fail(**_: object) -> None:
        asked.append(1)
        raise RedisError("gone")

    monkeypatch.setattr(throttle, "_script", lambda: fail)
    before = throttle.FAILED_OPEN._value.get()
    try:
        for _ in range(6):
            answer = stage.program.get("/organization")
            assert answer.status_code == 200
            assert "RateLimit" not in answer
    finally:
        throttle._Pause.until_s = 0.0
    assert throttle.FAILED_OPEN._value.get() == before + 6
    assert len(asked) == 1, "it was asked again before its pause was over"
