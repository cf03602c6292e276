"""The real web process for tests: pages and sockets, on the session's database and Valkey."""

from __future__ import annotations

import http.client
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devstack import ports
from devstack.application import portal_application
from devstack.datadir import DataDir
from devstack.process import Child, Launch, spawn

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
# How the log spells that something went wrong which nobody had foreseen.
_ALARMS = ("Traceback (most recent call last)", '"level": "error"', '"level": "critical"')


@dataclass(slots=True)
class RunningWeb:
    """Pages at `url` (no slash at the end); sockets at the same host and port."""

    url: str
    child: Child
    # Alarms that a test has failed for already.
    reported: set[str] = field(default_factory=set)

    @property
    def socket_url(self) -> str:
        return self.url.replace("http://", "ws://")

    @property
    def pid(self) -> int:
        return self.child.pid

    def is_running(self) -> bool:
        return self.child.popen.poll() is None

    def log(self) -> str:
        """All that the process has logged."""
        return self.child.log_path.read_text(errors="replace")

    def alarms(self) -> list[str]:
        """The lines of the log that report an error or a traceback."""
        return [line for line in self.log().splitlines() if any(alarm in line for alarm in _ALARMS)]

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and its exit code; what does not end in time is killed (subprocess.TimeoutExpired)."""
        if self.is_running():
            self.child.popen.send_signal(signal.SIGTERM)
        try:
            return self.child.popen.wait(timeout_s)
        finally:
            if self.is_running():
                self.child.popen.kill()
                self.child.popen.wait(5)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def choose_port() -> int:
    """A port for a web process that somebody has to know of before it starts."""
    return ports.choose(random.randrange(28_000, 32_000))


def start_web(folder: Path, *, port: int | None = None, **environment: str) -> RunningWeb:
    """Start one web process exactly as `make run` does, with further environment variables.

    Its log goes into `folder`. port: as choose_port has given it. Pages that show the API's address show
    API_BASE. Errors: AssertionError with the end of the log when it does not become ready.
    """
    port = port or choose_port()
    processes = portal_application(port, DataDir(folder)).processes
    (web,) = (process for process in processes if process.name == "web")
    own = {
        "SLUICE_ENV": "test",
        "PORTAL_URL": f"http://{ports.HOST}:{port}",
        "PYTHONUNBUFFERED": "1",
        # The playground's side of the process would knock at every backend that tests have made up.
        "SLUICE_HEALTH_S": "0",
    }
    child = spawn(
        f"web-{port}",
        Launch(argv=web.argv, env={**os.environ, **own, **environment}, cwd=ROOT),
        log_path=folder / f"web-{port}.log",
        run_dir=folder,
    )
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(port):
        if child.popen.poll() is not None or time.monotonic() > deadline_s:
            child.popen.kill()
            child.popen.wait(5)
            raise AssertionError(f"the web process did not become ready:\n{child.log_tail(50)}")
        time.sleep(0.05)
    return RunningWeb(own["PORTAL_URL"], child)


@contextmanager
def running_web(
    folder: Path | None = None,
    *,
    may_log_errors: bool = False,
    port: int | None = None,
    **environment: str,
) -> Iterator[RunningWeb]:
    """A web process that is stopped at the end. Errors: AssertionError when it died meanwhile, or when it
    logged an error or a traceback, unless it `may_log_errors`."""
    with tempfile.TemporaryDirectory(prefix="sluice-web-") as own_folder:
        web = start_web(folder or Path(own_folder), port=port, **environment)
        try:
            yield web
            assert web.is_running(), (
                f"the web process died ({web.child.describe_end()}):\n{web.log()[-8000:]}"
            )
        finally:
            web.stop()
        alarms = [line for line in web.alarms() if line not in web.reported]
        assert may_log_errors or not alarms, "\n".join(["the web process logged:", *alarms])
