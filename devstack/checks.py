"""`make lint` and `make test`: python -m devstack.checks lint|test [PYTEST ARGUMENTS].

Every check runs, also after one that failed, and a summary with the seconds of each closes the output.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.packages import REPOSITORY
from devstack.process import death_signal_armer

TYPED_FOLDERS = ("portal", "tenants", "models_catalog", "quotas", "devstack", "tests")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    argv: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    exit_code: int
    duration_s: float
    last_line: str


def lint_checks() -> list[Check]:
    scripts = Path(sys.executable).parent
    module = (sys.executable, "-m")
    # Models are compared with migration files: that no database answers is no news.
    quiet = "ignore:Got an error checking:RuntimeWarning"
    return [
        Check("ruff", (*module, "ruff", "check", ".")),
        Check("mypy", (*module, "mypy", *TYPED_FOLDERS)),
        Check("import contracts", (str(scripts / "lint-imports"),)),
        Check(
            "migrations",
            (sys.executable, "-W", quiet, "manage.py", "makemigrations", "--check", "--dry-run"),
        ),
    ]


def main(argv: Sequence[str]) -> int:
    """Returns 0 if every check passed, else 1."""
    what, *pytest_arguments = argv
    checks = lint_checks()
    if what == "test":
        checks.append(Check("pytest", (sys.executable, "-m", "pytest", *pytest_arguments)))
    environment = {**os.environ, "SLUICE_ENV": "test", "PYTHONUNBUFFERED": "1"}
    interrupted = threading.Event()
    # Ctrl-C reaches the running check by itself; we show what it still prints, and run no other.
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    outcomes = []
    for check in checks:
        outcomes.append(run(check, environment))
        if interrupted.is_set():
            break
    print_summary(outcomes)
    return 1 if interrupted.is_set() or any(outcome.exit_code for outcome in outcomes) else 0


def run(check: Check, environment: Mapping[str, str]) -> Outcome:
    """Runs one check, passing its output on line by line."""
    print(f"\n== {check.name}: {' '.join([Path(check.argv[0]).name, *check.argv[1:]])}", flush=True)
    started_at = time.monotonic()
    last_line = ""
    with subprocess.Popen(
        check.argv,
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=death_signal_armer(signal.SIGTERM),  # noqa: PLW1509 - see devstack.process
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last_line = line.strip() or last_line
    return Outcome(check.name, process.returncode, time.monotonic() - started_at, last_line)


def print_summary(outcomes: Sequence[Outcome]) -> None:
    """One line a check, then the closing line of the last one as it was: pytest's, when it ran."""
    print("\nSummary")
    for outcome in outcomes:
        verdict = "ok" if outcome.exit_code == 0 else "FAILED"
        print(f"  {verdict:6}  {outcome.name:16} {outcome.duration_s:7.1f} s")
    if outcomes[-1].name == "pytest":
        print(outcomes[-1].last_line)
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
