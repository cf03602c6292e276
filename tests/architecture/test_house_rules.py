"""Rules of the house that no linter sees, as reads of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db.migrations.loader import MigrationLoader

from portal.kit.migrations import LockTimeout

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("portal", "tenants", "models_catalog", "quotas", "devstack")
MAX_LINES = 500
LEDGER_WRITE = re.compile(
    r"(INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE)\s+quotas_(ledger\w+|wallet)\b(?!\s*\()", re.IGNORECASE
)
LEDGER_INSERT = re.compile(r"INSERT\s+INTO\s+quotas_(ledger\w+|wallet)\b", re.IGNORECASE)


def _sources(*suffixes: str) -> Iterator[Path]:
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in suffixes and not {"migrations", "__pycache__"} & set(path.parts):
                yield path


def _is_test(path: Path) -> bool:
    return "tests" in path.parts


def test_files_stay_readable_in_one_sitting() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in _sources(".py", ".sql")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not too_long


def test_only_the_ledger_writes_the_ledger() -> None:
    ledger = ROOT / "quotas" / "ledger"
    writers = [
        str(path.relative_to(ROOT))
        for path in _sources(".py", ".sql")
        if ledger not in path.parents
        and not _is_test(path)
        and (LEDGER_WRITE.search(text := path.read_text(encoding="utf-8")) or LEDGER_INSERT.search(text))
    ]
    assert not writers


def test_the_ledger_writes_itself() -> None:
    # Given the rule above, a pattern that matches nothing at all would prove nothing.
    text = (ROOT / "quotas/ledger/sql/ledger.sql").read_text(encoding="utf-8")
    assert LEDGER_INSERT.search(text)
    assert LEDGER_WRITE.search(text)


def test_the_domain_reads_no_clock_of_its_own() -> None:
    offenders = []
    for path in _sources(".py"):
        if path.relative_to(ROOT).parts[0] not in {"tenants", "models_catalog", "quotas"} or _is_test(path):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in {"utc_now", "now", "today", "utcnow"} and "management" not in path.parts:
                    offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not offenders


@pytest.mark.parametrize("package", ["tenants", "models_catalog", "quotas"])
def test_domain_operations_take_keywords_only(package: str) -> None:
    positional = []
    for path in sorted((ROOT / package).rglob("operations.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.args.args:
                positional.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not positional


def test_every_migration_gives_up_on_a_lock_that_it_cannot_have() -> None:
    loader = MigrationLoader(None)
    ours = {
        key: migration
        for key, migration in loader.disk_migrations.items()
        if key[0] in {"tenants", "models_catalog", "quotas", "portal"}
    }
    assert ours
    unguarded = [key for key, one in ours.items() if not isinstance(one.operations[0], LockTimeout)]
    assert not unguarded
