"""Child processes that never outlive the process that started them.

Every child gets a session of its own, so that the terminal's Ctrl-C reaches only us and we decide the order
of stopping, and a death signal (Linux: PR_SET_PDEATHSIG), so that a SIGKILL of ours leaves nothing running.
The kernel ties the death signal to the *thread* that started the child: start children from a thread that
lives as long as they do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

Pause = Callable[[float], None]
"""Waits up to so many seconds. It may return early, and it may raise to end the wait for good."""

POLL_S = 0.05
LOG_LIMIT_BYTES = 20 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 16 * 1024

# Loaded once, before any fork: looking a library up between fork and exec could deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class DevstackError(Exception):
    """A failure that the person at the terminal can act on; the message is written for them."""


class ChildEndedError(DevstackError):
    """A child ended before it was ready."""


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that a child runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one child: program with arguments, complete environment, and what it inherits."""

    argv: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path = Path("/")
    account: Account | None = None
    pass_fds: Sequence[int] = ()
    death_signal: signal.Signals = signal.SIGTERM


@dataclass(slots=True)
class Child:
    """A running (or ended) child. `log_start` is where its own output begins in the log file."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path
    log_start: int
    run_dir: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        code = self.popen.poll()
        if code is not None:
            _forget(self.run_dir, self.name)
        return code

    def is_running(self) -> bool:
        return self.exit_code() is None

    def describe_end(self) -> str:
        code = self.popen.returncode
        if code is None:
            return "still running"
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def log_tail(self, lines: int = 15) -> str:
        """The last lines this child wrote, indented, for printing below a message."""
        return tail(self.log_path, start=self.log_start, lines=lines)


def spawn(name: str, launch: Launch, *, log_path: Path, run_dir: Path) -> Child:
    """Starts a child with its output appended to `log_path`, and records it in `run_dir`/NAME.pid."""
    log = _open_log(log_path)
    account = launch.account
    try:
        popen = subprocess.Popen(
            [str(part) for part in launch.argv],
            env=dict(launch.env),
            cwd=launch.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=launch.pass_fds,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            # Runs after the change of user, which would have cleared the death signal. It only makes system
            # calls through a library that is loaded already, so threads that hold locks at the fork cannot
            # block it.
            preexec_fn=death_signal_armer(launch.death_signal),  # noqa: PLW1509
        )
        log_start = log.tell()
    except OSError as error:
        raise DevstackError(f"{name} could not be started: {error}") from error
    finally:
        log.close()
    _remember(run_dir, name, popen.pid)
    return Child(name=name, popen=popen, log_path=log_path, log_start=log_start, run_dir=run_dir)


def death_signal_armer(death_signal: signal.Signals) -> Callable[[], None] | None:
    """For `preexec_fn`: the child receives this signal when the thread that started it ends."""
    if _LIBC is None:
        return None
    libc, parent_pid = _LIBC, os.getpid()

    def arm() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            os._exit(126)
        # The parent may have died between fork and prctl; then the signal would never come.
        if os.getppid() != parent_pid:
            os._exit(126)

    return arm


def bare_environment() -> dict[str, str]:
    """The environment of servers that are not ours: no setting of the user (PGHOST, PYTHONPATH) leaks in."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def stop_with_parent(parent_pid: int) -> bool:
    """Makes this process itself receive SIGTERM when its parent ends (Linux; elsewhere nothing happens).

    Returns whether the parent, whose id the caller was told, still lives.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    return os.getppid() == parent_pid


def wait_until_ready(child: Child, is_ready: Callable[[], bool], *, timeout_s: float, pause: Pause) -> None:
    """Returns once `is_ready()`. ChildEndedError if the child ends first, DevstackError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if not child.is_running():
            raise ChildEndedError(f"{child.name} did not start ({child.describe_end()}):\n{child.log_tail()}")
        if is_ready():
            return
        if time.monotonic() > deadline:
            raise DevstackError(f"{child.name} was not ready within {timeout_s:.0f} s:\n{child.log_tail()}")
        pause(POLL_S)


def run_to_end(
    name: str, launch: Launch, *, log_path: Path, run_dir: Path, timeout_s: float, pause: Pause
) -> None:
    """Runs one command; DevstackError with the end of its output unless it exits 0 within `timeout_s`."""
    child = spawn(name, launch, log_path=log_path, run_dir=run_dir)
    deadline = time.monotonic() + timeout_s
    try:
        while child.is_running():
            if time.monotonic() > deadline:
                raise DevstackError(f"{name} did not end within {timeout_s:.0f} s:\n{child.log_tail()}")
            pause(POLL_S)
    finally:
        kill(ask_to_stop([child], signal.SIGTERM, patience_s=5.0))
    if child.exit_code() != 0:
        raise DevstackError(f"{name} failed ({child.describe_end()}); see {log_path}:\n{child.log_tail()}")


def ask_to_stop(
    children: Iterable[Child],
    signal_number: signal.Signals,
    *,
    patience_s: float,
    hurry: Callable[[], bool] = lambda: False,
) -> list[Child]:
    """Sends a signal to all and waits until they ended, for `patience_s` or until `hurry()`; returns the
    rest.
    """
    running = [child for child in children if child.is_running()]
    for child in running:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal_number)
    deadline = time.monotonic() + patience_s
    while running and time.monotonic() < deadline and not hurry():
        time.sleep(POLL_S)
        running = [child for child in running if child.is_running()]
    return running


def kill(children: Iterable[Child]) -> None:
    """SIGKILL to the whole session of each child that still runs; returns when they are gone."""
    for child in children:
        if child.is_running():
            _kill_session(child.pid)
            child.popen.wait()
            child.exit_code()


def end_leftovers(run_dir: Path, *, patience_s: float, pause: Pause) -> list[str]:
    """Waits for children of an earlier, killed supervisor, then kills what is left, and returns their names.

    Only call it while holding the lock of the data folder. A recorded process counts as ours only if it
    also has the recorded birth time, since process ids are used again.
    """
    leftovers = {
        path.stem: pid for path in run_dir.glob("*.pid") if (pid := recorded_pid(run_dir, path.stem))
    }
    deadline = time.monotonic() + patience_s
    while any(recorded_pid(run_dir, name) for name in leftovers) and time.monotonic() < deadline:
        pause(POLL_S)
    killed = [name for name in leftovers if recorded_pid(run_dir, name)]
    for name in killed:
        _kill_session(leftovers[name])
    for path in [*run_dir.glob("*.pid"), *run_dir.glob("*.birth")]:
        path.unlink(missing_ok=True)
    return killed


def recorded_pid(run_dir: Path, name: str) -> int | None:
    """The process id recorded for `name` if that very process still runs, else None."""
    try:
        pid = int((run_dir / f"{name}.pid").read_text())
        birth = (run_dir / f"{name}.birth").read_text()
    except (OSError, ValueError):
        return None
    return pid if birth and _birth(pid) == birth else None


def tail(path: Path, *, start: int = 0, lines: int = 15) -> str:
    """The last lines of a file from byte `start` on, each indented by four spaces."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return "    (no output)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (no output)"


def _open_log(path: Path) -> BinaryIO:
    """Opens a log for appending, private to us; one that has grown too large is set aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(path.suffix + ".1"))
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    log.seek(0, os.SEEK_END)
    return log


def _remember(run_dir: Path, name: str, pid: int) -> None:
    (run_dir / f"{name}.birth").write_text(_birth(pid))
    (run_dir / f"{name}.pid").write_text(f"{pid}\n")


def _forget(run_dir: Path, name: str) -> None:
    for suffix in ("pid", "birth"):
        (run_dir / f"{name}.{suffix}").unlink(missing_ok=True)


def _birth(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when it is gone (or without /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in brackets and may itself contain spaces and brackets.
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _kill_session(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
