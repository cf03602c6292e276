"""A real Celery worker, and beat, for tests: on the session's Valkey and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.process import Child, Launch, spawn
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_ROLE = {"DATABASE_ROLE": "dataplane"}
_CELERY = (sys.executable, "-m", "celery", "-A", "portal.celery")


@dataclass(slots=True)
class RunningCelery:
    """A worker that takes tasks, and beat where it was asked for."""

    worker: Child
    beat: Child | None

    def log(self) -> str:
        """What the worker has logged."""
        return self.worker.log_path.read_text()

    def wait_succeeded(self, task_id: str, *, timeout_s: float = 20.0) -> None:
        """Return once the worker has run that task to its end. Errors: TimeoutError, AssertionError."""

        def has_succeeded() -> bool:
            lines = [line for line in self.log().splitlines() if task_id in line]
            assert not any("raised" in line for line in lines), "\n".join(lines)
            return any("succeeded" in line for line in lines)

        wait_for(has_succeeded, timeout_s, f"task {task_id}")


def _spawn(name: str, folder: Path, environment: dict[str, str], *arguments: str) -> Child:
    return spawn(
        name,
        Launch(argv=[*_CELERY, *arguments], env={**os.environ, **environment}, cwd=ROOT),
        log_path=folder / f"{name}.log",
        run_dir=folder,
    )


def _stop(child: Child) -> None:
    """SIGTERM, then SIGKILL."""
    if child.popen.poll() is None:
        child.popen.send_signal(signal.SIGTERM)
        try:
            child.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.popen.kill()
            child.popen.wait(STOP_TIMEOUT_S)


def _spawn_beat(folder: Path, environment: dict[str, str]) -> Child:
    return _spawn("beat", folder, environment, "beat", "-s", str(folder / "beat-schedule"), "--pidfile=")


@contextmanager
def running_beat(folder: Path, **environment: str) -> Iterator[None]:
    """Beat alone, for a worker that runs already; further environment variables go to it."""
    beat = _spawn_beat(folder, _ROLE | environment)
    try:
        yield
    finally:
        _stop(beat)


@contextmanager
def running_celery(folder: Path, *, with_beat: bool = False, **environment: str) -> Iterator[RunningCelery]:
    """A worker of all queues, started and stopped; further environment variables go to worker and beat.

    Call it from the main thread. Errors: AssertionError when the worker does not become ready.
    """
    environment = _ROLE | environment
    options = (
        "-Q",
        "default,ledger,payments,reconciliation",
        "--loglevel",
        "INFO",
        "--without-gossip",
        "--without-mingle",
    )
    worker = _spawn(
        "worker", folder, environment, "worker", "--pool", "threads", "--concurrency", "2", *options
    )
    beat: Child | None = None
    try:
        wait_for(
            lambda: worker.popen.poll() is not None or " ready." in worker.log_path.read_text(),
            READY_TIMEOUT_S,
            "the worker",
        )
        assert worker.popen.poll() is None, f"the worker ended:\n{worker.log_tail(50)}"
        if with_beat:
            beat = _spawn_beat(folder, environment)
        yield RunningCelery(worker, beat)
    finally:
        for child in (beat, worker):
            if child is not None:
                _stop(child)
