"""The data folder: private, locked, and written as a whole."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys

import pytest

from devstack.datadir import DataDir, InstanceBusyError, format_env, parse_env
from devstack.packages import REPOSITORY
from devstack.process import DevstackError

AWKWARD = {"A": "plain", "B": 'it\'s $HOME `x` \\ "q"', "C": "", "URL": "redis://:pw@127.0.0.1:1/0"}


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_private_is_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        folder = DataDir(tmp_path / "data")
        folder.create()
        folder.remember("valkey", password="p")
        folder.write_instance_env(AWKWARD)
    finally:
        os.umask(old)
    assert mode(folder.logs) == mode(folder.run) == 0o700
    assert mode(folder.instance_env) == mode(tmp_path / "data" / "services.json") == 0o600


def test_existing_folder_keeps_its_mode(tmp_path):
    (tmp_path / "data").mkdir(mode=0o750)
    before = mode(tmp_path / "data")
    DataDir(tmp_path / "data").create()
    assert mode(tmp_path / "data") == before


def test_impossible_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DevstackError, match=r"DATA_DIR .*file/data cannot be used"):
        DataDir(tmp_path / "file" / "data").create()


def test_second_holder_is_told_who_has_it(tmp_path):
    folder = DataDir(tmp_path)
    folder.create()
    again = DataDir(tmp_path).locked("manage")
    expected = rf"process {os.getpid()}, run"
    with folder.locked("run"), pytest.raises(InstanceBusyError, match=expected) as busy, again:
        raise AssertionError("two hold the lock")
    assert busy.value.purpose == "run"
    with folder.locked("manage"):
        assert (folder.run / "lock").read_text() == f"manage {os.getpid()}\n"


def test_remembered_values_add_up(tmp_path):
    folder = DataDir(tmp_path)
    folder.remember("postgres", port=1, owner_password="a")
    folder.remember("postgres", port=2)
    folder.remember("valkey", port=3)
    assert folder.recall("postgres") == {"port": 2, "owner_password": "a"}
    assert folder.recall("model") == {}


def test_env_file_reads_the_same_in_python_and_in_a_shell(tmp_path):
    text = format_env(AWKWARD)
    assert text.splitlines()[0] == "A='plain'"
    assert parse_env(text) == AWKWARD
    (tmp_path / "instance.env").write_text(text)
    file = shlex.quote(str(tmp_path / "instance.env"))
    program = "import os; print(os.environ['B'])"
    script = f'set -a; . {file}; exec {sys.executable} -c "{program}"'
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == AWKWARD["B"] + "\n"


def test_instance_that_never_ran_is_a_clear_error(tmp_path):
    completed = subprocess.run(
        [sys.executable, "-m", "devstack", "manage", "--data-dir", str(tmp_path), "--", "audit", "--verbose"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr == f"Error: There is no instance in {tmp_path} yet: `make run` creates one.\n"
