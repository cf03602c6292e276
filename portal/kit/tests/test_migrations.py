"""Migrations that run a SQL file go forward only."""

from pathlib import Path

from portal.kit.migrations import run_sql_file


def test_there_is_no_way_back_from_a_file_of_functions(tmp_path: Path) -> None:
    # Half a way back would drop the tables and leave admission asking for them.
    path = tmp_path / "functions.sql"
    path.write_text("SELECT 1", encoding="utf-8")
    assert not run_sql_file(path).reversible
