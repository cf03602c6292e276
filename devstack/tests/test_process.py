"""Children: their own session, their death signal, their records, and how they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from devstack import process
from devstack.packages import REPOSITORY
from devstack.process import ChildEndedError, DevstackError, Launch
from devstack.tests.helpers import eventually, is_gone

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
time.sleep(60)
"""


def python(code: str) -> Launch:
    return Launch(argv=[sys.executable, "-c", code], env=process.bare_environment())


@pytest.fixture
def spawn(tmp_path: Path):
    children = []

    def start(code: str, name: str = "child") -> process.Child:
        child = process.spawn(name, python(code), log_path=tmp_path / f"{name}.log", run_dir=tmp_path)
        children.append(child)
        return child

    yield start
    process.kill(children)


def test_child_has_its_own_session_and_no_terminal(spawn, tmp_path):
    child = spawn("import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read())")
    eventually(lambda: not child.is_running())
    assert child.log_tail() == "    True "


def test_pid_is_recorded_while_it_runs_only(spawn, tmp_path):
    child = spawn("import time; time.sleep(60)")
    assert process.recorded_pid(tmp_path, "child") == child.pid
    process.kill([child])
    assert child.describe_end() == "signal SIGKILL"
    assert process.recorded_pid(tmp_path, "child") is None
    assert not (tmp_path / "child.pid").exists()


def test_polite_child_is_not_killed(spawn):
    child = spawn(POLITE)
    eventually(lambda: "up" in child.log_tail())
    assert process.ask_to_stop([child], signal.SIGTERM, patience_s=10.0) == []
    assert child.exit_code() == 7


def test_stubborn_child_is_killed_after_its_patience(spawn):
    child = spawn(STUBBORN)
    eventually(lambda: "up" in child.log_tail())
    assert process.ask_to_stop([child], signal.SIGTERM, patience_s=0.2) == [child]
    process.kill([child])
    assert child.exit_code() == -signal.SIGKILL


def test_hurry_ends_the_patience(spawn):
    child = spawn(STUBBORN)
    eventually(lambda: "up" in child.log_tail())
    started_at = time.monotonic()
    assert process.ask_to_stop([child], signal.SIGTERM, patience_s=60.0, hurry=lambda: True) == [child]
    assert time.monotonic() - started_at < 10.0


def test_waiting_for_a_child_that_ends_shows_what_it_said(spawn):
    child = spawn("import sys; print('no such table'); sys.exit(3)")
    with pytest.raises(ChildEndedError, match=r"exit code 3\):\n    no such table"):
        process.wait_until_ready(child, lambda: False, timeout_s=20.0, pause=time.sleep)


def test_waiting_for_a_child_that_never_gets_ready_ends(spawn):
    child = spawn("import time; time.sleep(60)")
    with pytest.raises(DevstackError, match="was not ready within 0 s"):
        process.wait_until_ready(child, lambda: False, timeout_s=0.1, pause=time.sleep)


def test_log_tail_is_of_this_run_only(spawn, tmp_path):
    (tmp_path / "child.log").write_text("of an earlier run\n")
    child = spawn("print('of this run')")
    eventually(lambda: not child.is_running())
    assert child.log_tail() == "    of this run"
    assert (tmp_path / "child.log").read_text() == "of an earlier run\nof this run\n"


def test_large_log_is_set_aside(spawn, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "LOG_LIMIT_BYTES", 10)
    (tmp_path / "child.log").write_text("more than ten bytes\n")
    child = spawn("print('new')")
    eventually(lambda: not child.is_running())
    assert (tmp_path / "child.log").read_text() == "new\n"
    assert (tmp_path / "child.log.1").read_text() == "more than ten bytes\n"


def test_command_that_fails_says_why(tmp_path):
    def run(code: str, timeout_s: float = 30.0) -> None:
        process.run_to_end(
            "step",
            python(code),
            log_path=tmp_path / "step.log",
            run_dir=tmp_path,
            timeout_s=timeout_s,
            pause=time.sleep,
        )

    run("print('fine')")
    with pytest.raises(DevstackError, match=r"step failed \(exit code 1\).*\n    the reason"):
        run("raise SystemExit('the reason')")
    with pytest.raises(DevstackError, match="did not end within"):
        run("import time; time.sleep(60)", timeout_s=0.3)
    assert not list(tmp_path.glob("*.pid"))


def test_missing_program_is_a_devstack_error(tmp_path):
    launch = Launch(argv=["/does/not/exist"], env={})
    with pytest.raises(DevstackError, match="ghost could not be started"):
        process.spawn("ghost", launch, log_path=tmp_path / "ghost.log", run_dir=tmp_path)


PARENT = """
import sys, time
from pathlib import Path
from devstack.process import Launch, bare_environment, spawn
folder = Path(sys.argv[1])
launch = Launch(argv=[sys.executable, "-c", "import time; time.sleep(60)"], env=bare_environment())
child = spawn("child", launch, log_path=folder / "child.log", run_dir=folder)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="death signals exist on Linux only")
def test_child_dies_with_a_killed_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=10)
    eventually(lambda: is_gone(child), timeout_s=10.0)


def test_leftovers_are_waited_for_then_killed(spawn, tmp_path):
    child = spawn("import time; time.sleep(60)")
    killed = process.end_leftovers(tmp_path, patience_s=0.2, pause=time.sleep)
    assert killed == ["child"]
    eventually(lambda: not child.is_running())
    assert not list(tmp_path.glob("*.pid"))


def test_reused_process_id_is_not_a_leftover(tmp_path):
    (tmp_path / "other.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "other.birth").write_text("1")
    (tmp_path / "broken.pid").write_text("no number")
    assert process.end_leftovers(tmp_path, patience_s=5.0, pause=time.sleep) == []
