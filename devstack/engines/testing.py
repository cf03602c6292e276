"""Starts engine simulators from tests and reads their books.

with start_engine("vllm", tokens_per_s=0) as engine:
    ...  # send requests to engine.url
    assert engine.totals()["generated_tokens"] == 40
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from devstack.engines.directive import parse_directive
from devstack.engines.feeds.faults import RecordFault
from devstack.engines.feeds.options import FeedOptions
from devstack.engines.options import (
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_MODEL,
    DEFAULT_TOKENS_PER_S,
    Flavour,
    Shutdown,
)

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
_PORTS = range(20_000, 32_768)
_BIND_TRIES = 100
_ROOT = Path(__file__).resolve().parents[2]


class EngineStartError(RuntimeError):
    """The simulator did not come up; the message holds what it wrote to stderr."""


def sim(**fields: int | float | str) -> str:
    """The text of a directive, e.g. `sim(tokens=40, fault="reset_after:7")`. Raises DirectiveError."""
    text = "[[sim" + "".join(f" {name}={value}" for name, value in fields.items()) + "]]"
    parse_directive(text)
    return text


class RunningEngine:
    """A simulator that answers at `url` (no trailing slash, no /v1). Stop it, or use it in a `with`."""

    def __init__(
        self, url: str, api_key: str | None, process: subprocess.Popen[bytes], log: IO[bytes]
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.pid = process.pid
        self._process = process
        self._log = log
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))

    def requests(self, *, since_seq: int = 0) -> list[dict[str, Any]]:
        """Records of the requests so far, oldest first; fields as in `books.RequestRecord`."""
        records: list[dict[str, Any]] = json.loads(self._get(f"/sim/requests?since={since_seq}"))
        return records

    def totals(self) -> dict[str, Any]:
        """Sums over all requests; fields as in `books.Totals`."""
        sums: dict[str, Any] = json.loads(self._get("/sim/totals"))
        return sums

    def last_body(self, *, seq: int | None = None) -> Any:
        """The decoded body of the last request, or of the one with that number. Raises LookupError."""
        status, body = self._call("GET", "/sim/last_body" if seq is None else f"/sim/last_body?seq={seq}")
        if status != 200:
            raise LookupError("the engine does not keep that body")
        return json.loads(body)

    def wait_idle(self, *, timeout_s: float = 5.0) -> None:
        """Returns when the engine has no open request. Raises TimeoutError."""
        self._wait("max=0", timeout_s)

    def wait_running(self, count: int = 1, *, timeout_s: float = 5.0) -> None:
        """Returns when at least `count` requests have arrived and are not over. Raises TimeoutError."""
        self._wait(f"min={count}", timeout_s)

    def _wait(self, condition: str, timeout_s: float) -> None:
        path = f"/sim/wait?{condition}&timeout_s={timeout_s}"
        status, _ = self._call("GET", path, timeout_s=timeout_s + CALL_TIMEOUT_S)
        if status != 200:
            raise TimeoutError(f"not {condition} open requests within {timeout_s} s: {self.totals()}")

    def reset(self) -> None:
        """Empties the books. The engine's own counters go on, as a real engine's would."""
        self._call("POST", "/sim/reset")

    def behave(self, **behaviour: float | str | bool | None) -> None:
        """Changes what the engine does from now on: fault, healthy, tokens_per_s, total_tokens_per_s,
        prefill_tokens_per_s, slots; `fault=None` ends a fault. Raises ValueError."""
        self._post("/sim/behave", behaviour)

    def faults(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Injected faults so far, oldest first; fields as in `feeds.injected.Injected`."""
        injected: list[dict[str, Any]] = json.loads(self._get(f"/sim/faults?since={since}"))
        return injected

    def feed_state(self) -> dict[str, Any]:
        """`files` that are written by format, and of pushed feeds the records `pushed` and `pending`."""
        state: dict[str, Any] = json.loads(self._get("/sim/feed"))
        return state

    def fail_next_record(self, fault: RecordFault) -> None:
        """The next record of each feed meets this fault."""
        self._post("/sim/feed", {"fault": fault})

    def flush_feeds(self) -> None:
        """Sends what waits to be pushed, and returns when it was taken or given up."""
        self._post("/sim/feed", {"flush": True}, timeout_s=120.0)

    def bypass(
        self, *, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0, count: int = 1
    ) -> None:
        """So many calls of somebody who does not come through the gateway. Raises ValueError."""
        wanted = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        self._post("/sim/bypass", wanted | {"cached_tokens": cached_tokens, "count": count})

    def restart(self) -> None:
        """Open calls are lost, and the counters begin anew, as those of a new process."""
        self._post("/sim/restart", {})

    def reset_counters(self) -> None:
        """The counters begin anew in the middle of things."""
        self._post("/sim/restart?counters=1", {})

    def _post(self, path: str, body: dict[str, Any], *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        status, answer = self._call("POST", path, body=json.dumps(body).encode(), timeout_s=timeout_s)
        if status != 200:
            raise ValueError(answer.decode(errors="replace"))

    def metrics(self) -> dict[str, float]:
        """The Prometheus page: value by series as written, e.g. `llamacpp:prompt_tokens_total`."""
        rows = (
            line.rpartition(" ") for line in self._get("/metrics").decode().splitlines() if line[:1] != "#"
        )
        return {series: float(value) for series, _, value in rows}

    def terminate(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        self._process.terminate()

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Ends the process (SIGTERM, SIGKILL after 5 s) and returns its exit status. May be repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._reap()

    def kill(self) -> int:
        """Ends the process at once, as a crash would (SIGKILL)."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        return self._reap()

    def _reap(self) -> int:
        status = self._process.wait(STOP_TIMEOUT_S)
        self._log.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _get(self, path: str) -> bytes:
        status, body = self._call("GET", path)
        if status != 200:
            raise RuntimeError(f"GET {path} answered {status}: {body[:500]!r}")
        return body

    def _call(
        self, method: str, path: str, *, timeout_s: float = CALL_TIMEOUT_S, body: bytes | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=timeout_s)
        headers = {"Connection": "close"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def start_engine(
    flavour: Flavour,
    *,
    api_key: str | None = None,
    tokens_per_s: float = DEFAULT_TOKENS_PER_S,
    total_tokens_per_s: float | None = None,
    prefill_tokens_per_s: float | None = None,
    slots: int | None = None,
    embeddings: bool = False,
    shutdown: Shutdown = "drop",
    version: str | None = None,
    context: int = DEFAULT_CONTEXT_TOKENS,
    model: str = DEFAULT_MODEL,
    seed: int | None = None,
    record: Path | None = None,
    books_file: Path | None = None,
    feed: FeedOptions | None = None,
    port: int | None = None,
) -> RunningEngine:
    """Starts a simulator on loopback and returns when it answers. Raises EngineStartError, OSError.

    tokens_per_s is that of a sequence which runs alone; total_tokens_per_s what all together come near to;
    slots how many run at once. See `machine.py` and `options.py`. `books_file` gets every finished call and
    injected fault as a JSON line; `feed` says which usage feeds it has, and their faults.

    Without `port` a free one below 32768 is taken. The socket is bound here and inherited, so nobody
    can take the port in between. The process dies with the thread that calls this: call it from one
    that lives as long as the engine is needed.
    """
    with _listen(port) as listener:
        host, bound_port = listener.getsockname()
        options: dict[str, object] = {
            "flavour": flavour,
            "fd": listener.fileno(),
            "parent-pid": os.getpid(),
            "tokens-per-s": tokens_per_s,
            "total-tokens-per-s": total_tokens_per_s,
            "prefill-tokens-per-s": prefill_tokens_per_s,
            "slots": slots,
            "shutdown": shutdown,
            "engine-version": version,
            "context": context,
            "model": model,
            "api-key": api_key,
            "seed": seed,
            "record": record,
            "books-file": books_file,
        }
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        given += ["--embeddings"] if embeddings else []
        given += [] if feed is None else feed.arguments()
        log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the engine runs
        process = subprocess.Popen(
            [sys.executable, "-m", "devstack.engines", *given],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
    engine = RunningEngine(f"http://{host}:{bound_port}", api_key, process, log)
    try:
        # The socket listens already: the question waits in its queue until the engine is up.
        engine._call("GET", "/health", timeout_s=READY_TIMEOUT_S)
    except OSError as failed:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        log.seek(0)
        text = log.read().decode(errors="replace")
        log.close()
        raise EngineStartError(f"{flavour} simulator did not start ({failed}): {text[-2000:]}") from failed
    return engine


def _listen(port: int | None) -> socket.socket:
    for _ in range(_BIND_TRIES):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port or random.choice(_PORTS)))
            listener.listen(2048)
        except OSError:
            listener.close()
            if port is not None:
                raise
        else:
            return listener
    raise EngineStartError("no free port below 32768")
