"""What sessions copy is what migrations make, and a copy that is no good never fails a session."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from devstack import kept_clusters
from devstack.datadir import DataDir
from devstack.kept_clusters import KeptClusters
from devstack.packages import REPOSITORY
from devstack.testing import Services, start_services

# Everything that migrations make, as PostgreSQL spells it.
_MADE: dict[str, LiteralString] = {
    "migrations": "SELECT app, name FROM django_migrations",
    "tables": """
        SELECT relname, relkind, relacl::text, relrowsecurity, relforcerowsecurity, reloptions::text
        FROM pg_class WHERE relnamespace = 'public'::regnamespace""",
    "columns": """
        SELECT a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, a.attgenerated, a.attacl::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "functions": """
        SELECT oid::regprocedure::text, proacl::text, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prokind IN ('f', 'p')""",
    "triggers": "SELECT tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "policies": "SELECT * FROM pg_policies WHERE schemaname = 'public'",
    "roles": "SELECT rolname, rolsuper, rolinherit, rolcanlogin, rolbypassrls FROM pg_roles",
    "memberships": """
        SELECT roleid::regrole::text, member::regrole::text, inherit_option, set_option
        FROM pg_auth_members""",
    "extensions": "SELECT extname, extversion FROM pg_extension",
}


@contextmanager
def running(folder: Path, clusters: KeptClusters) -> Iterator[Services]:
    services = start_services(folder, clusters=clusters)
    try:
        yield services
    finally:
        services.stop()


def made_in(url: str) -> dict[str, list[str]]:
    with psycopg.connect(url) as connection:
        return {what: sorted(map(str, connection.execute(query))) for what, query in _MADE.items()}


def kept_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


@pytest.mark.timeout(600)
def test_migrations_from_nothing_make_what_sessions_work_with(database: None, tmp_path: Path) -> None:
    fresh = start_services(tmp_path / "data")
    # As `make run` does it.
    without_role = {key: value for key, value in os.environ.items() if key != "DATABASE_ROLE"}
    try:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"],
            cwd=REPOSITORY,
            env={**without_role, "DATABASE_URL": fresh.database_url},
            check=True,
        )
        made = made_in(fresh.database_url)
    finally:
        fresh.stop()
    worked_with = made_in(os.environ["DATABASE_URL"])
    assert len(made["migrations"]) > 50
    assert {what for what, rows in made.items() if rows != worked_with[what]} == set()


def test_what_migrations_import_is_in_the_digest() -> None:
    known = set(kept_clusters.sources())
    migrations = [path for path in known if path.parent.name == "migrations"]
    assert len(migrations) > 20
    imported: set[str] = set()
    for path in migrations:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    files = {REPOSITORY / f"{module.replace('.', '/')}.py" for module in imported}
    assert {path for path in files if path.is_file()} <= known


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a kept cluster, in which a table says 1."""
    folder = tmp_path_factory.mktemp("kept")
    clusters = KeptClusters(folder / "clusters")
    with running(folder / "data", clusters) as first:
        assert not first.is_copy
        with psycopg.connect(first.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        first.keep_cluster(clusters)
        # The server has come back, and what it does now is its own affair.
        with psycopg.connect(first.database_url) as connection:
            connection.execute("UPDATE kept SET n = 2")
    return folder / "clusters"


def test_a_kept_cluster_is_copied_with_its_passwords(kept: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data", KeptClusters(kept)) as second:
        assert second.is_copy
        with psycopg.connect(second.database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_nothing_is_kept_where_files_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = KeptClusters(tmp_path / "kept")
    with running(tmp_path / "data", clusters) as services:
        monkeypatch.setattr(kept_clusters, "digest", lambda: "another")
        services.keep_cluster(clusters)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("damage", ["missing file", "no facts", "unusable"])
def test_a_damaged_cluster_is_made_anew_and_forgotten(kept: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "kept"
    shutil.copytree(kept, folder)
    (damaged,) = kept_in(folder)
    if damage == "missing file":
        next((damaged / "pgdata" / "base").rglob("[0-9]*[0-9]/*")).unlink()
    elif damage == "no facts":
        (damaged / "facts.json").write_text("{")
    else:
        control = damaged / "pgdata" / "global" / "pg_control"
        control.write_bytes(bytes(control.stat().st_size))
    with running(tmp_path / "data", KeptClusters(folder)) as services:
        assert not services.is_copy
        psycopg.connect(services.database_url).close()
        assert kept_in(folder) == []
        services.keep_cluster(KeptClusters(folder))
        assert [path.name for path in kept_in(folder)] == [services.cluster]


def test_the_ones_used_last_stay(tmp_path: Path) -> None:
    data, clusters = data_of_nobody(tmp_path / "data"), KeptClusters(tmp_path / "kept")
    for number in range(5):
        clusters.keep(f"cluster-{number}", data)
        os.utime(tmp_path / "kept" / f"cluster-{number}", (number, number))
    clusters.keep("cluster-5", data)
    # Another session that made the same is no trouble, and leaves nothing.
    clusters.keep("cluster-5", data)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "cluster-3",
        "cluster-4",
        "cluster-5",
    ]
    empty = data_of_nobody(tmp_path / "empty", has_cluster=False)
    assert not clusters.take("cluster-0", empty)
    assert clusters.take("cluster-4", empty)
    assert empty.recall("postgres")["owner_password"] == "two"


def data_of_nobody(root: Path, *, has_cluster: bool = True) -> DataDir:
    """A data folder, with the files of a cluster that no server has ever run with."""
    data_dir = DataDir(root)
    data_dir.create()
    if has_cluster:
        cluster = root / "postgres" / "pgdata"
        cluster.mkdir(parents=True)
        (cluster / "PG_VERSION").write_text("18\n")
        data_dir.remember("postgres", superuser_password="one", owner_password="two")
    return data_dir
