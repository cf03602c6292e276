"""Starts a stand-in from tests, as a process of its own, and tells it what to do.

with running_standin(tmp_path, webhook_url=…) as standin:
    client = stripe.StripeClient(standin.secret_key, base_addresses={"api": standin.url})
    session = client.v1.checkout.sessions.create(…)
    standin.control.complete_session(session.id)
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devstack.engines.testing import _listen
from devstack.stripe_standin import coverage

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 30.0
_ROOT = Path(__file__).resolve().parents[2]


class StandinError(RuntimeError):
    """The stand-in did not start, or refused a command; the message says why."""


class StandinControl:
    """The control API. Every command of `commands.py` is a method: `control.open_dispute(payment=…)`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def run(**body: Any) -> Any:
            return self.post(name, **body)

        return run

    def post(self, command: str, **body: Any) -> Any:
        return self._call("POST", command, json.dumps(body).encode())

    def get(self, page: str) -> Any:
        return self._call("GET", page)

    def complete_session(
        self, session: str, *, method: str = "card", behaviour: str = "pays", **more: str
    ) -> Any:
        """A person confirms: {"refusal": None or words, "session": …}. more: last4, country."""
        return self.post("complete_session", session=session, method=method, behaviour=behaviour, **more)

    def books(self) -> Any:
        """Everything that happened to money; see `books.read_books`."""
        return self.get("books")

    def chaos(self, **probabilities: float) -> Any:
        """Sets all of it; what is left out is off."""
        return self.post("chaos", **probabilities)

    def settings(self, **changes: Any) -> Any:
        return self.post("settings", **changes)

    def fault(self, fault: str, *, match: str = ".", times: int = 1) -> Any:
        """The next requests whose "METHOD /path" matches the pattern meet this fault."""
        return self.post("faults", fault=fault, match=match, times=times)

    def advance(self, seconds: float) -> Any:
        """Moves the account's clock forward; what falls due happens."""
        return self.post("clock", by_s=seconds)

    def deliver(self, **choice: Any) -> Any:
        """Delivers now what was not acknowledged: events=[…], include_lost, times, shuffle=seed."""
        return self.post("deliver", **choice)

    def drain(self, timeout_s: float = 10.0) -> None:
        """Returns once every event that is neither lost nor held was acknowledged. Raises StandinError."""
        waiting = self.post("drain", timeout_s=timeout_s)["waiting"]
        if waiting:
            raise StandinError(f"{waiting} deliveries were not acknowledged within {timeout_s} s")

    def violations(self) -> list[dict[str, str]]:
        """Requests and answers that do not match Stripe's description."""
        found: list[dict[str, str]] = self.get("violations")
        return found

    def coverage(self) -> dict[str, int]:
        """How many requests each endpoint has had."""
        found: dict[str, int] = self.get("coverage")["endpoints"]
        return found

    def _call(self, method: str, page: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, f"/_standin/{page}", body=body, headers=headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise StandinError(f"{method} {page}: {answer.get('error', answer)}")
        return answer


class Standin:
    """A running stand-in. `kill` and `restart` keep address, keys and everything that was answered."""

    def __init__(
        self, folder: Path, *, webhook_url: str | None, methods: Sequence[str] | None, validate: bool
    ):
        folder.mkdir(parents=True, exist_ok=True)
        with _listen(None) as listener:
            self.port: int = listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            self.secret_key = "sk_test_" + secrets.token_hex(16)
            self.webhook_secret = "whsec_" + secrets.token_hex(16)
            self.control = StandinControl(self.port)
            self._log = folder / "stripe_standin.log"
            self._options = {
                "store": folder / "stripe_standin.sqlite3",
                "base-url": self.url,
                "secret-key": self.secret_key,
                "webhook-secret": self.webhook_secret,
                "webhook-url": webhook_url,
                "methods": ",".join(methods) if methods is not None else None,
            }
            self._flags = ["--validate"] if validate else []
            self._process = self._start(["--fd", str(listener.fileno())], (listener.fileno(),))
        self._wait()

    def restricted_key(self, *scopes: str) -> str:
        """A new restricted key, e.g. restricted_key("checkout_session_write", "customer_write")."""
        key: str = self.control.post("keys", scopes=list(scopes))["key"]
        return key

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Starts again where it was, after `kill` or while it runs."""
        self.stop()
        self._process = self._start(["--port", str(self.port)], ())
        self._wait()

    def stop(self) -> None:
        """Ends the process. May be repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def _start(self, where: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        given = [f"--{name}={value}" for name, value in self._options.items() if value is not None]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "devstack.stripe_standin", *where, *given, *self._flags),
                    *("--parent-pid", str(os.getpid())),
                ],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
            )

    def _wait(self) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.control.get("health")
                return
            except OSError as failed:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self.stop()
                    text = self._log.read_text(errors="replace")[-3000:]
                    raise StandinError(f"the stand-in did not start ({failed}): {text}") from failed
                time.sleep(0.02)


@contextmanager
def running_standin(
    folder: Path,
    *,
    webhook_url: str | None = None,
    validate: bool = True,
    methods: Sequence[str] | None = None,
) -> Iterator[Standin]:
    """A stand-in that keeps its store and its log in `folder`, and ends with the block.

    validate: every request and answer is compared with Stripe's description and its client's types; what does
    not match fails the block's end. methods: what the account has; card, alipay, wechat_pay, us_bank_account.
    The process dies with the thread that calls this: call it from one that lives long enough. Raises
    StandinError.
    """
    standin = Standin(folder, webhook_url=webhook_url, methods=methods, validate=validate)
    try:
        yield standin
        if validate and standin._process.poll() is None:
            violations = standin.control.violations()
            if violations:
                raise AssertionError(f"not as Stripe describes it: {json.dumps(violations, indent=1)}")
            coverage.leave(standin.control.coverage())
    finally:
        standin.stop()
