"""PostgreSQL and Valkey for a test session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack import kept_clusters
from devstack.datadir import DataDir
from devstack.kept_clusters import KeptClusters
from devstack.postgres import Postgres
from devstack.process import DevstackError
from devstack.valkey import Valkey


@dataclass(slots=True)
class Services:
    """Running servers. Tests that need an outage stop and start `valkey` or `postgres`."""

    database_url: str
    valkey_url: str
    secrets_dir: Path
    postgres: Postgres = field(repr=False)
    valkey: Valkey = field(repr=False)
    # The name of the cluster that migrations would make; empty where none is kept.
    cluster: str = ""
    is_copy: bool = False

    def stop(self) -> None:
        """Stops both; calling it again does nothing."""
        self.valkey.stop()
        self.postgres.stop()

    def keep_cluster(self, clusters: KeptClusters) -> None:
        """Once the database has been migrated and is used by nobody: keeps it for sessions to come.

        PostgreSQL stops for that and comes back at the same port. Where files have changed meanwhile, it
        would be kept under a wrong name, so it is not.
        """
        if self.cluster and not self.is_copy and self.cluster == kept_clusters.digest():
            self.postgres.stop()
            clusters.keep(self.cluster, self.postgres.data_dir)
            self.postgres.start()


def start_services(
    data_dir: Path,
    *,
    postgres_settings: Mapping[str, str] | None = None,
    clusters: KeptClusters | None = None,
) -> Services:
    """Starts both servers with an empty or earlier `data_dir`, which nothing else may use.

    `database_url` is of the owner role, who may create databases and roles. `secrets_dir` is a path only:
    the caller fills it. Call it from the main thread (see devstack.process); the servers end with this
    process at the latest. postgres_settings: of the server, in addition to those of every instance.
    clusters: where to look for a migrated one to begin with. DevstackError when a server does not start.
    """
    folder = DataDir(data_dir)
    folder.create()
    # Parallel test sessions look for their ports in different places.
    seed = os.getpid()
    postgres = Postgres(folder, port_seed=seed, settings=postgres_settings)
    valkey = Valkey(folder, port_seed=seed)
    services = Services("", "", folder.secrets, postgres, valkey)
    try:
        if clusters is not None:
            services.cluster = kept_clusters.digest()
            services.is_copy = _starts_with_copy(postgres, clusters, services.cluster)
        if not services.is_copy:
            postgres.start()
        valkey.start()
    except BaseException:
        services.stop()
        raise
    services.database_url = postgres.url
    services.valkey_url = valkey.url
    return services


def _starts_with_copy(postgres: Postgres, clusters: KeptClusters, name: str) -> bool:
    """Whether PostgreSQL runs now with a kept cluster. One that it cannot use is kept no longer."""
    if not clusters.take(name, postgres.data_dir):
        return False
    try:
        postgres.start()
    except DevstackError:
        postgres.stop()
        clusters.discard(name)
        kept_clusters.drop_cluster(postgres.data_dir)
        return False
    return True
