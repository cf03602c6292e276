"""Prepares the virtual environment `.venv` for `make`: python3 devstack/install.py run|dev.

Runs with the system's Python before anything is installed: standard library only, and a syntax that older
versions can still read, so that they get our message instead of a syntax error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
OLDEST_PYTHON = (3, 11)
CONSTRAINTS = "constraints.txt"
# Installed in a step of their own, without what they declare to need.
RUN_WITHOUT_DEPENDENCIES = ("requirements-nodeps.txt",)
WITHOUT_DEPENDENCIES = {
    "run": RUN_WITHOUT_DEPENDENCIES,
    "dev": (*RUN_WITHOUT_DEPENDENCIES, "requirements-dev-nodeps.txt"),
}
OPENMP = "requirements-openmp.txt"
RUN_FILES = ("requirements.txt", "requirements-devstack.txt", "requirements-build.txt")
# What is installed for developing includes what is installed for running.
FILES = {"run": RUN_FILES, "dev": (*RUN_FILES, "requirements-dev.txt")}
RUN_BUILDERS = (["devstack.frontend"], ["devstack.translations", "compile"])
BUILDERS = {"run": RUN_BUILDERS, "dev": (*RUN_BUILDERS, ["devstack.client_sdks"])}
NEEDED_BY = {"run": "`make run`", "dev": "`make test`"}


def main(purpose: str) -> int:
    """Returns 0 once everything in FILES[purpose] is installed and stylesheet, scripts, message catalogs
    and whatever else BUILDERS names are built; does nothing that was done already."""
    problem = find_problem()
    if problem:
        print("Error: " + problem, file=sys.stderr)
        return 1
    # One installation at a time: two instances may be started from the same tree at once.
    handle = os.open(REPOSITORY, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not is_installed(purpose):
            install(purpose)
        # They compare by themselves, and say by themselves what failed.
        for builder in BUILDERS[purpose]:
            if subprocess.call([str(VENV_PYTHON), "-m", *builder], cwd=str(REPOSITORY)) != 0:
                return 1
        return 0
    except subprocess.CalledProcessError as error:
        print("Error: the installation failed (see above): " + " ".join(error.cmd), file=sys.stderr)
        return 1
    finally:
        os.close(handle)


def find_problem() -> str | None:
    """What keeps this Python from being used, in words, or None."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(str(part) for part in OLDEST_PYTHON)
        return f"Python {oldest} or later is needed; {sys.executable} is {version}. Try PYTHON=python{oldest}"
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return (
            f"{sys.executable} lacks the venv module. On Debian and Ubuntu: apt install python{version}-venv"
        )
    return None


def is_installed(purpose: str) -> bool:
    return any(
        stamp_file(name).is_file() and stamp_file(name).read_text() == fingerprint(name)
        for name in FILES
        if set(FILES[purpose]) <= set(FILES[name])
    )


def install(purpose: str) -> None:
    """Runs pip as often as needed; raises subprocess.CalledProcessError when one run fails."""
    started_at = time.monotonic()
    make_venv()
    say(f"Installing what {NEEDED_BY[purpose]} needs into .venv; the first time it takes minutes and 600 MB.")
    for name in FILES:
        stamp_file(name).unlink(missing_ok=True)
    pip("-c", CONSTRAINTS, *[part for file in FILES[purpose] for part in ("-r", file)])
    pip("--no-deps", *[part for file in WITHOUT_DEPENDENCIES[purpose] for part in ("-r", file)])
    if run_quietly([VENV_PYTHON, "-m", "devstack.openmp"]) != 0:
        pip("--no-deps", "-r", OPENMP)
    stamp_file(purpose).write_text(fingerprint(purpose))
    say(f"Installed in {time.monotonic() - started_at:.0f} s.")


def make_venv() -> None:
    """Makes `.venv` unless it works; one that is broken (interrupted, or its Python is gone) is remade."""
    if VENV_PYTHON.exists() and run_quietly([VENV_PYTHON, "-m", "pip", "--version"]) == 0:
        return
    say(f"Creating .venv with {sys.executable} ({sys.version.split()[0]}).")
    if VENV.is_dir():
        shutil.rmtree(VENV)
    run([sys.executable, "-m", "venv", str(VENV)])


def pip(*arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run([str(VENV_PYTHON), "-m", "pip", "install", *options, *arguments])


def say(line: str) -> None:
    print(line, flush=True)


def run(argv: list[str]) -> None:
    subprocess.run(argv, cwd=REPOSITORY, stdin=subprocess.DEVNULL, check=True)


def run_quietly(argv: list[str | Path]) -> int:
    return subprocess.run(
        argv,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


def stamp_file(name: str) -> Path:
    """Holds the fingerprint of what was installed last."""
    return VENV / f"installed-{name}"


def fingerprint(purpose: str) -> str:
    """Changes with every file that decides what is installed, and with the minor version of Python."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in (*FILES[purpose], CONSTRAINTS, *WITHOUT_DEPENDENCIES[purpose], OPENMP):
        digest.update((REPOSITORY / file).read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
