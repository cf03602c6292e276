"""The data folder of one instance: its layout, its lock, and what is remembered between two starts.

- instance.env: what this instance's processes are told (0600); demo.env: written by `manage.py seed` (0600)
- services.json: ports and passwords of the embedded services (0600)
- secrets/: peppers and key ring; logs/: one file a process; run/: process ids and the lock (all 0700)
- postgres/, valkey/, stripe/, lib/: what the embedded services keep; feeds/: of the simulated engine
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devstack.process import DevstackError

LOCK_NAME = "lock"


class InstanceBusyError(DevstackError):
    """Another process holds the data folder. `purpose` is what it said it does: run, manage or test."""

    def __init__(self, root: Path, purpose: str, pid: str) -> None:
        super().__init__(
            f"DATA_DIR {root} is in use by another instance (process {pid}, {purpose}). "
            "Stop that one, or choose another DATA_DIR and PORT."
        )
        self.purpose = purpose


class DataDir:
    """A data folder; `create` makes what is missing and never changes what is there."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.run = self.root / "run"
        self.secrets = self.root / "secrets"
        self.demo_env = self.root / "demo.env"
        self.instance_env = self.root / "instance.env"
        self._services = self.root / "services.json"

    def create(self) -> None:
        """Makes the folder and its private parts. DevstackError when this user may not."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            # As root, PostgreSQL runs as another user, who has to pass through this folder. What is private
            # in it has a mode of its own.
            private_folder(self.root, mode=0o711 if os.geteuid() == 0 else 0o700)
            for folder in (self.logs, self.run):
                private_folder(folder)
            if not os.access(self.run, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"{self.run} belongs to another user")
        except OSError as error:
            raise DevstackError(f"DATA_DIR {self.root} cannot be used: {error}") from error

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Holds the folder until the end of this process at the latest; InstanceBusyError when another has
        it.
        """
        handle = os.open(self.run / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who, _, pid = os.read(handle, 100).decode().strip().partition(" ")
                raise InstanceBusyError(self.root, who or "starting", pid or "unknown") from None
            os.truncate(handle, 0)
            os.write(handle, f"{purpose} {os.getpid()}\n".encode())
            yield
        finally:
            os.close(handle)

    def recall(self, service: str) -> dict[str, Any]:
        """What was remembered for a service; empty at first."""
        section = self._read_services().get(service, {})
        return dict(section)

    def remember(self, service: str, **values: Any) -> None:
        """Adds to what is remembered for a service; durable when it returns."""
        services = self._read_services()
        services[service] = {**services.get(service, {}), **values}
        write_private(self._services, json.dumps(services, indent=2) + "\n")

    def _read_services(self) -> dict[str, dict[str, Any]]:
        try:
            services: dict[str, dict[str, Any]] = json.loads(self._services.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DevstackError(f"{self._services} cannot be read: {error}") from error
        return services

    def write_instance_env(self, values: Mapping[str, str]) -> None:
        write_private(self.instance_env, format_env(values))

    def read_instance_env(self) -> dict[str, str]:
        """The variables of the last start; DevstackError when there was none."""
        try:
            return parse_env(self.instance_env.read_text())
        except FileNotFoundError:
            raise DevstackError(f"There is no instance in {self.root} yet: `make run` creates one.") from None
        except OSError as error:
            raise DevstackError(f"{self.instance_env} cannot be read: {error}") from error


def private_folder(path: Path, *, mode: int = 0o700) -> None:
    """Makes a folder with exactly this mode whatever the umask; one that exists keeps its mode."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)


def write_private(path: Path, text: str) -> None:
    """Replaces a file as a whole (0600), so that a reader or a crash never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def format_env(values: Mapping[str, str]) -> str:
    """Shell lines KEY='value'."""
    lines = []
    for key, value in values.items():
        quoted = value.replace("'", "'\"'\"'")
        lines.append(f"{key}='{quoted}'\n")
    return "".join(lines)


def parse_env(text: str) -> dict[str, str]:
    """Reads what `format_env` wrote."""
    pairs = (word.partition("=") for word in shlex.split(text, comments=True))
    return {key: value for key, _, value in pairs}
