"""PostgreSQL and Valkey for a test session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack.datadir import DataDir
from devstack.postgres import Postgres
from devstack.valkey import Valkey


@dataclass(slots=True)
class Services:
    """Running servers. Tests that need an outage stop and start `valkey` or `postgres`."""

    database_url: str
    valkey_url: str
    secrets_dir: Path
    postgres: Postgres = field(repr=False)
    valkey: Valkey = field(repr=False)

    def stop(self) -> None:
        """Stops both; calling it again does nothing."""
        self.valkey.stop()
        self.postgres.stop()


def start_services(data_dir: Path, *, postgres_settings: Mapping[str, str] | None = None) -> Services:
    """Starts both servers with an empty or earlier `data_dir`, which nothing else may use.

    `database_url` is of the owner role, who may create databases and roles. `secrets_dir` is a path only:
    the caller fills it. Call it from the main thread (see devstack.process); the servers end with this
    process at the latest. postgres_settings: of the server, in addition to those of every instance.
    DevstackError when one does not start.
    """
    folder = DataDir(data_dir)
    folder.create()
    # Parallel test sessions look for their ports in different places.
    seed = os.getpid()
    postgres = Postgres(folder, port_seed=seed, settings=postgres_settings)
    valkey = Valkey(folder, port_seed=seed)
    services = Services("", "", folder.secrets, postgres, valkey)
    try:
        postgres.start()
        valkey.start()
    except BaseException:
        services.stop()
        raise
    services.database_url = postgres.url
    services.valkey_url = valkey.url
    return services
