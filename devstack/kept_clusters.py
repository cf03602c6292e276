"""Migrated database clusters that test sessions keep for one another.

Running every migration from nothing takes half a minute of processor time and always ends in the same
database. So the first session that has done it keeps a copy of the stopped cluster, and later ones begin with
that copy. A cluster is kept under a digest of all that it is made from: another migration, another version of
PostgreSQL or Django, or another day (partitions are made for the days around today) is another cluster.

Nothing here may fail a session: where a kept cluster is missing, damaged or cannot be read, there is none,
and the session makes its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from devstack.datadir import DataDir, private_folder, write_private
from devstack.packages import REPOSITORY
from devstack.postgres import Postgres
from devstack.postgres_binaries import account_for
from devstack.process import DevstackError

FOLDER = REPOSITORY / ".test_clusters"
# The trees of several branches take turns; older ones will hardly be met again.
_KEPT = 3
_UNFINISHED = ".unfinished-"
_ABANDONED_AFTER_S = 3600.0
_APPLICATIONS = ("portal", "tenants", "models_catalog", "quotas")
# What migrations import of the product (a test compares it with them), which applications there are, and what
# makes the cluster.
_ALSO = ("portal/kit/*.py", "portal/settings/base.py", "devstack/postgres*.py")
_PASSWORDS = ("superuser_password", "owner_password")
_FACTS = "facts.json"
_CLUSTER = "pgdata"


def sources() -> Iterator[Path]:
    """The files of this tree that a migrated cluster is made from."""
    for application in _APPLICATIONS:
        yield from (REPOSITORY / application).rglob("*.sql")
        yield from (REPOSITORY / application).rglob("migrations/*.py")
    for pattern in _ALSO:
        yield from REPOSITORY.glob(pattern)


def digest() -> str:
    """Names the cluster that migrations would make now, from these files and packages."""
    told = hashlib.sha256(f"{datetime.now(UTC):%Y-%m-%d} {os.geteuid()}\n".encode())
    for distribution in sorted(f"{one.name}=={one.version}" for one in metadata.distributions()):
        told.update(f"{distribution}\n".encode())
    for path in sorted(set(sources())):
        # An editor may have replaced it since it was listed.
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            told.update(f"{path.relative_to(REPOSITORY)} {len(content)}\n".encode() + content)
    return told.hexdigest()[:32]


class KeptClusters:
    """The kept clusters in one folder, which several sessions use at a time."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def take(self, name: str, data_dir: DataDir) -> bool:
        """Copies that cluster into a data folder that has none yet; whether there was one.

        The cluster's passwords are remembered in the data folder, as if it had been made there.
        """
        kept = self._folder / name
        postgres = data_dir.root / "postgres"
        try:
            facts = json.loads((kept / _FACTS).read_text())
            account = account_for(postgres / _CLUSTER)
            private_folder(postgres, mode=0o711 if account else 0o700)
            _copy(kept / _CLUSTER, postgres / _CLUSTER)
            if _measure(postgres / _CLUSTER) != facts["size"]:
                raise ValueError("a part of the cluster is missing")
            for path in (postgres / _CLUSTER, *(postgres / _CLUSTER).rglob("*")):
                if account:
                    os.chown(path, account.uid, account.gid)
            data_dir.remember(Postgres.name, **{key: facts[key] for key in _PASSWORDS})
            os.utime(kept)
        except FileNotFoundError:
            drop_cluster(data_dir)
            return False
        except (OSError, ValueError, KeyError, DevstackError):
            drop_cluster(data_dir)
            self.discard(name)
            return False
        return True

    def keep(self, name: str, data_dir: DataDir) -> None:
        """Copies the cluster of a stopped server here, and drops what has not been used for longest."""
        with suppress(OSError):
            private_folder(self._folder)
            with tempfile.TemporaryDirectory(
                dir=self._folder, prefix=_UNFINISHED, ignore_cleanup_errors=True
            ) as temporary:
                unfinished = Path(temporary)
                cluster = data_dir.root / "postgres" / _CLUSTER
                _copy(cluster, unfinished / _CLUSTER)
                passwords = {key: data_dir.recall(Postgres.name)[key] for key in _PASSWORDS}
                facts = {"size": _measure(unfinished / _CLUSTER), **passwords}
                write_private(unfinished / _FACTS, json.dumps(facts))
                # Where another session was faster, its copy is as good, and this one goes.
                unfinished.rename(self._folder / name)
            self._prune()

    def discard(self, name: str) -> None:
        """Forgets a cluster that turned out to be unusable."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _prune(self) -> None:
        by_age = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        kept = [path for path in by_age if not path.name.startswith(_UNFINISHED)]
        abandoned = [
            path
            for path in by_age
            if path not in kept and path.stat().st_mtime < time.time() - _ABANDONED_AFTER_S
        ]
        for path in (*kept[_KEPT:], *abandoned):
            self.discard(path.name)


def drop_cluster(data_dir: DataDir) -> None:
    """Removes a cluster that no server runs with, so that the next start makes one from nothing."""
    shutil.rmtree(data_dir.root / "postgres" / _CLUSTER, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    # Written by a server that has ended: a lock or a socket's name in it would be a lie about this one.
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("postmaster.pid", "postmaster.opts"))
    target.chmod(0o700)


def _measure(folder: Path) -> list[int]:
    """How many files there are, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return [len(sizes), sum(sizes)]
