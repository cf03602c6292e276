"""The parts of the suite: together they are all tests, each once, and their counts are told together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from devstack import suite
from devstack.packages import REPOSITORY


def part_paths() -> list[Path]:
    return [REPOSITORY / path for part in suite.PARTS for path in part.paths]


def is_run_by(command: list[str], file: Path) -> bool:
    """Whether pytest finds the file when it is called like that."""
    options = [
        REPOSITORY / word.removeprefix("--ignore=") for word in command if word.startswith("--ignore=")
    ]
    paths = [REPOSITORY / word for word in command[3:] if not word.startswith("-")]
    here = (file, *file.parents)
    return any(path in here for path in paths) and not any(path in here for path in options)


def test_every_test_file_is_in_one_part() -> None:
    roots = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    files = [path for root in roots["testpaths"] for path in (REPOSITORY / root).rglob("test_*.py")]
    assert len(files) > 100
    commands = [suite.command_of(part) for part in suite.PARTS]
    times = {str(file): sum(is_run_by(command, file) for command in commands) for file in files}
    assert {file: count for file, count in times.items() if count != 1} == {}


def test_a_part_leaves_out_what_another_one_names() -> None:
    by_name = {part.name: suite.command_of(part) for part in suite.PARTS}
    assert "--ignore=tests/journeys/test_every_page.py" in by_name["journeys"]
    assert not [word for word in by_name["every page"] if word.startswith("--ignore")]


def test_every_path_of_a_part_exists() -> None:
    assert [path for path in part_paths() if not path.exists()] == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["==== 3 passed in 1.00s ====", "== 1 failed, 2 passed, 1 error in 2s =="],
            "1 failed, 5 passed, 1 error",
        ),
        (
            ["== 2 errors in 2s ==", "== 4 passed, 2 skipped, 1 xfailed in 2s =="],
            "4 passed, 2 skipped, 1 xfailed, 2 error",
        ),
        (["", "Killed"], "no tests ran"),
    ],
)
def test_counts_are_told_together(lines: list[str], told: str) -> None:
    assert suite.closing_line(lines, duration_s=2.5) == f"==== {told} in 2.50s ===="


def test_failures_are_found_in_the_output() -> None:
    output = ["FAILED tests/a.py::b - boom", "  FAILED in text", "ERROR tests/c.py::d", "ERRORS", "1 passed"]
    assert suite.failures_of(output) == ["FAILED tests/a.py::b - boom", "ERROR tests/c.py::d"]
