"""Start-up checks of the database: its version, and that all pools together fit."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

# Connections that each process may open at most; two gateways and one of each other process.
WEB_THREADS = 8
WEB_ALIASES = 3  # auth, tenant, operator
WORKER_THREADS = 4
WORKER_ALIASES = 2  # dataplane, owner


def connection_budget() -> int:
    """What all processes of one installation may open together, with room for a shell and migrations."""
    gateways = 2 * (settings.TUNING["SLUICE_GATEWAY_POOL"] + 2)
    return int(gateways + WEB_THREADS * WEB_ALIASES + WORKER_THREADS * WORKER_ALIASES + 10)


@register(Tags.database)
def check_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    if not databases:
        return []
    found: list[CheckMessage] = []
    with connections[databases[0]].cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
            "current_setting('max_connections')::int, current_setting('server_encoding')"
        )
        number, version, max_connections, encoding = cursor.fetchone()
    if number < settings.MIN_POSTGRESQL_VERSION * 10_000:
        lowest = settings.MIN_POSTGRESQL_VERSION
        found.append(
            Error(f"PostgreSQL {version} is too old; the lowest supported is {lowest}.", id="sluice.E001")
        )
    if connection_budget() > max_connections:
        found.append(
            Error(
                f"All pools together may open {connection_budget()} connections, "
                f"but max_connections is {max_connections}.",
                hint="Raise max_connections or lower SLUICE_GATEWAY_POOL.",
                id="sluice.E002",
            )
        )
    if encoding != "UTF8":
        found.append(Error(f"The database's encoding is {encoding}; it must be UTF8.", id="sluice.E003"))
    return found
