"""Restarting: growing delays, a limit, and no restart for what must not come back quietly."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack.process import Child, DevstackError
from devstack.watching import MAX_RESTARTS_A_MINUTE, Watch, Watched


def never_started() -> Child:
    raise AssertionError("must not be started")


def test_delays_double_up_to_the_limit():
    watched = Watched("gateway", never_started)
    assert [watched.schedule_restart(100.0) for _ in range(MAX_RESTARTS_A_MINUTE)] == [
        0.5,
        1.0,
        2.0,
        4.0,
        8.0,
    ]
    assert watched.schedule_restart(100.0) is None


def test_a_quiet_minute_clears_the_record():
    watched = Watched("gateway", never_started)
    for _ in range(MAX_RESTARTS_A_MINUTE):
        watched.schedule_restart(100.0)
    assert watched.schedule_restart(160.5) == 0.5


class EndedChild(Child):
    """A child that ended at once."""

    pid = 1

    def __init__(self, tmp_path: Path) -> None:
        self.name = "thing"
        self.log_path = tmp_path / "thing.log"
        self.log_start = 0

    def is_running(self) -> bool:
        return False

    def describe_end(self) -> str:
        return "exit code 1"


def test_what_does_not_restart_ends_the_watch(tmp_path):
    watch = Watch(pause=lambda seconds: None, say=lambda line: None)
    watch.add(Watched("postgres", never_started, restarts=False, child=EndedChild(tmp_path)))
    with pytest.raises(DevstackError, match=r"thing ended unexpectedly \(exit code 1\)"):
        watch.require_all_alive()
    with pytest.raises(DevstackError, match=r"thing ended unexpectedly \(exit code 1\)"):
        watch.keep_running()


def test_what_keeps_ending_ends_the_watch(tmp_path):
    now = 100.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += min(max(seconds, 0.0), 1.0)

    said: list[str] = []
    starts = 0

    def start() -> Child:
        nonlocal starts
        starts += 1
        return EndedChild(tmp_path)

    watch = Watch(pause=pause, say=said.append, clock=lambda: now)
    watch.add(Watched("gateway", start, child=EndedChild(tmp_path)))
    with pytest.raises(DevstackError, match="gateway ended 6 times within a minute"):
        watch.keep_running()
    assert starts == MAX_RESTARTS_A_MINUTE
    assert "Starting gateway again in 8 s." in said[-2]
