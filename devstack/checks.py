"""`make lint` and `make test`: python -m devstack.checks lint|test [PYTEST ARGUMENTS].

Every check runs, also after one that failed, and a summary with the seconds of each closes the output.
Without arguments the tests run in parts (see `suite`), side by side; with arguments in one session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devstack import suite
from devstack.packages import REPOSITORY
from devstack.process import death_signal_armer
from devstack.stripe_standin import coverage

TYPED_FOLDERS = ("portal", "tenants", "models_catalog", "quotas", "devstack", "benchmarks", "tests")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    argv: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    exit_code: int
    duration_s: float
    output: Sequence[str]

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.output) if line), "")


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
    if what == "test" and pytest_arguments:
        checks.append(Check("pytest", (sys.executable, "-m", "pytest", *pytest_arguments)))
    environment = {**os.environ, "SLUICE_ENV": "test", "PYTHONUNBUFFERED": "1"}
    # Dozens of sessions and processes begin, each of which would compile all of its modules again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    interrupted = threading.Event()
    # Ctrl-C reaches the running check by itself; we show what it still prints, and run no other.
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    outcomes = []
    for check in checks:
        outcomes.append(run(check, environment))
        if interrupted.is_set():
            break
    closing = outcomes[-1].last_line if outcomes[-1].name == "pytest" else ""
    if what == "test" and not pytest_arguments and not interrupted.is_set():
        started_at = time.monotonic()
        coverage.forget()
        parts = run_parts(environment, interrupted)
        outcomes += parts
        for part in parts:
            print("\n".join(suite.failures_of(part.output)), end="\n" if part.exit_code else "")
        closing = suite.closing_line(
            [part.last_line for part in parts], duration_s=time.monotonic() - started_at
        )
        for line in coverage.lines():
            print(line)
    print_summary(outcomes, closing)
    return 1 if interrupted.is_set() or any(outcome.exit_code for outcome in outcomes) else 0


def run_parts(environment: Mapping[str, str], interrupted: threading.Event) -> list[Outcome]:
    """All parts of the test suite, a few at a time; the output of each is printed whole when it ends."""
    printing = threading.Lock()

    def run_part(part: suite.Part) -> Outcome | None:
        if interrupted.is_set():
            return None
        check = Check(f"tests: {part.name}", suite.command_of(part))
        outcome = run(check, environment, is_live=False)
        with printing:
            print(f"\n== {check.name}: {outcome.duration_s:.0f} s", *outcome.output, sep="\n", flush=True)
        return outcome

    print(f"\n== tests: {len(suite.PARTS)} parts, {suite.slots()} at a time", flush=True)
    with ThreadPoolExecutor(suite.slots()) as pool:
        return [outcome for outcome in pool.map(run_part, suite.PARTS) if outcome is not None]


def run(check: Check, environment: Mapping[str, str], *, is_live: bool = True) -> Outcome:
    """Runs one check; is_live: passing its output on line by line."""
    if is_live:
        print(f"\n== {check.name}: {' '.join([Path(check.argv[0]).name, *check.argv[1:]])}", flush=True)
    started_at = time.monotonic()
    output: list[str] = []
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
            if is_live:
                print(line, end="", flush=True)
            output.append(line.rstrip())
    return Outcome(check.name, process.returncode, time.monotonic() - started_at, output)


def print_summary(outcomes: Sequence[Outcome], closing: str) -> None:
    """One line a check, then pytest's closing line, when it ran."""
    print("\nSummary")
    for outcome in outcomes:
        verdict = "ok" if outcome.exit_code == 0 else "FAILED"
        print(f"  {verdict:6}  {outcome.name:18} {outcome.duration_s:7.1f} s")
    if closing:
        print(closing)
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
