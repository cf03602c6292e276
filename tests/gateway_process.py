"""Real gateway processes for tests, on the session's database."""

from __future__ import annotations

import http.client
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

from devstack import ports
from devstack.process import Child, Launch, spawn

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 20.0


@dataclass(slots=True)
class RunningGateway:
    """A gateway that answers at `url`; `api_base` ends in /v1."""

    url: str
    child: Child

    @property
    def api_base(self) -> str:
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        return self.child.pid

    def kill(self) -> None:
        """As a crash: SIGKILL, and wait until it is gone."""
        self.child.popen.kill()
        self.child.popen.wait(5)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; its exit code after the drain."""
        if self.child.popen.poll() is None:
            self.child.popen.send_signal(signal.SIGTERM)
        return self.child.popen.wait(timeout_s)

    def log(self) -> str:
        return self.child.log_tail(200)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def start_gateway(folder: Path, **environment: str) -> RunningGateway:
    """Start one gateway process with further environment variables; its log goes into `folder`."""
    port = ports.choose(random.randrange(28_000, 32_000))
    child = spawn(
        f"gateway-{port}",
        Launch(
            argv=[sys.executable, "-m", "portal.gateway", "--port", str(port)],
            # Tests script their backends request by request; those of health checks would be in the way.
            env={"SLUICE_HEALTH_S": "0", **os.environ, **environment},
            cwd=ROOT,
        ),
        log_path=folder / f"gateway-{port}.log",
        run_dir=folder,
    )
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(port):
        if child.popen.poll() is not None or time.monotonic() > deadline_s:
            child.popen.kill()
            child.popen.wait(5)
            raise AssertionError(f"the gateway did not become ready:\n{child.log_tail(50)}")
        time.sleep(0.05)
    return RunningGateway(f"http://127.0.0.1:{port}", child)


@contextmanager
def running_gateway(folder: Path, **environment: str) -> Iterator[RunningGateway]:
    gateway = start_gateway(folder, **environment)
    try:
        yield gateway
    finally:
        if gateway.child.popen.poll() is None:
            gateway.stop()


def client(gateway: RunningGateway, token: str) -> httpx.Client:
    """A plain HTTP client with the key of an organization."""
    return httpx.Client(
        base_url=gateway.api_base, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    )
