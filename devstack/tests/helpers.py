"""Bounded waiting, free ports, and a running stand-in instance to look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from devstack import ports
from devstack.packages import REPOSITORY
from devstack.service import Service

START_TIMEOUT_S = 60.0
NAMED_SERVERS = (
    "DATABASE_URL",
    "VALKEY_URL",
    "CATALOG_FILE",
    "STRIPE_SECRET_KEY",
    "STRIPE_API_BASE",
    "SECRETS_DIR",
    "SLUICE_ENV",
)


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)


def port_with_free_neighbour() -> int:
    first = 20_000 + os.getpid() * 10 % 7_000
    for port in range(first, first + 1_000, 2):
        if ports.why_not_free(port) is None and ports.why_not_free(port + 1) is None:
            return port
    raise AssertionError("no free port")


def is_gone(process: psutil.Process) -> bool:
    """Ended, or ended and not yet collected by whoever inherited it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def process_of(service: Service) -> psutil.Process:
    assert service.child is not None
    return psutil.Process(service.child.pid)


class Instance:
    """A stand-in instance as a subprocess, in a process group of its own as a terminal would have it."""

    def __init__(
        self,
        port: int,
        data_dir: Path,
        kind: str = "plain",
        named_servers: Mapping[str, str] | None = None,
    ) -> None:
        # The test session has servers of its own; an instance starts others unless a test names some.
        inherited = {key: value for key, value in os.environ.items() if key not in NAMED_SERVERS}
        environment = {**inherited, **(named_servers or {})}
        self.port = port
        self.data_dir = data_dir
        self.output_path = data_dir.with_name(f"{data_dir.name}.output")
        with self.output_path.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "devstack.tests.stand_in", str(port), str(data_dir), kind],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.output_path.read_text()

    def wait_for(self, text: str) -> None:
        def seen() -> bool:
            assert text in self.output() or self.popen.poll() is None, self.output()
            return text in self.output()

        eventually(seen, timeout_s=START_TIMEOUT_S)

    def pid_of(self, name: str) -> int:
        return int((self.data_dir / "run" / f"{name}.pid").read_text())

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.popen.pid).children(recursive=True))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        os.killpg(self.popen.pid, number)
        return self.popen.wait(timeout=60)


@contextmanager
def running_instance(
    data_dir: Path, *, kind: str = "plain", named_servers: Mapping[str, str] | None = None
) -> Iterator[Instance]:
    """Ready when it is handed over; whatever happens, nothing of it is left afterwards."""
    instance = Instance(port_with_free_neighbour(), data_dir, kind, named_servers)
    try:
        instance.wait_for("Ready: http")
        yield instance
    finally:
        if instance.popen.poll() is None:
            instance.stop(signal.SIGTERM)
