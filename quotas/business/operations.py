"""Writes of the business figures: hours are allocated as a whole, again and again until they are final."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from django.db import DatabaseError, connections, transaction
from django.db.backends.utils import CursorWrapper

from quotas.business.hour import HOUR, allocate, read_hour
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

# Calls end, and expired holds are swept, well before an hour is over for good.
GRACE_S: Final = 3600
# A run comes every few minutes; what is behind is caught up in so many.
MAX_HOURS: Final = 72
# How far back late settlements and revisions are looked for, and how far back figures begin at all.
LOOKBACK: Final = timedelta(days=35)
HISTORY: Final = timedelta(days=400)
STATEMENT_TIMEOUT_S: Final = 120
_LOCK: Final = 0x51C0_0002

_SQL = Path(__file__).parent / "sql"
_HOURS, _DUE = ((_SQL / f"{name}.sql").read_text(encoding="utf-8") for name in ("hours", "due"))
_FIRST = """
SELECT date_trunc('hour', least((SELECT min(hour) FROM quotas_usagerollup), (
  SELECT min(active_from) FROM models_catalog_poolcostversion
  WHERE active_to IS NULL OR active_to > active_from)), 'UTC')
"""


@dataclass(frozen=True, slots=True)
class AllocationReport:
    """How many hours a run allocated, found in somebody else's hands, and could not allocate."""

    allocated: int
    taken: int
    failed: int


def allocate_hours(*, now: datetime, grace_s: int = GRACE_S, max_hours: int = MAX_HOURS) -> AllocationReport:
    """Allocate the hours that need it, the newest first and at most `max_hours` of them.

    These are the hours that have not been allocated yet, those that are not final (the one that runs, and
    those that ended less than `grace_s` ago), and those of the last LOOKBACK for which something came late.
    Safe to run twice and beside itself: each hour is one transaction of whoever gets to it first, and an hour
    that fails keeps its figures and does not keep the others from theirs. Runs as the operator role.
    """
    outcomes = [
        _try_allocate(hour=hour, now=now, grace_s=grace_s) for hour in _due(now=now, max_hours=max_hours)
    ]
    return AllocationReport(outcomes.count(True), outcomes.count(False), outcomes.count(None))


def _due(*, now: datetime, max_hours: int) -> list[datetime]:
    with role_scope("operator"), transaction.atomic(using="operator"), _cursor() as cursor:
        cursor.execute(_FIRST)
        (first,) = cursor.fetchone()
        if first is None:
            return []
        first = max(first, _hour_of(now) - HISTORY)
        since = max(first, _hour_of(now) - LOOKBACK)
        until = max(_hour_of(now) + HOUR, since)
        cursor.execute(
            f"WITH marks AS MATERIALIZED ({_HOURS}) {_DUE}",
            {"begin": first, "now": now, "from": since, "to": until, "most": max_hours},
        )
        return [row[0] for row in cursor.fetchall()]


def _try_allocate(*, hour: datetime, now: datetime, grace_s: int) -> bool | None:
    """None when the hour could not be allocated, otherwise as allocate_hour."""
    try:
        return allocate_hour(hour=hour, now=now, grace_s=grace_s)
    except DatabaseError as error:
        logger.exception(
            "quotas.business.not_allocated", extra={"hour": hour.isoformat(), "reason": type(error).__name__}
        )
        return None


def allocate_hour(*, hour: datetime, now: datetime, grace_s: int = GRACE_S) -> bool:
    """Allocate one hour (UTC) that has begun, as far as it has passed; false when somebody else is at it.

    Errors: ValueError when nothing of the hour has passed; django.db.DatabaseError.
    """
    until = min(hour + HOUR, now.replace(microsecond=0))
    if hour != _hour_of(hour) or until <= hour:
        raise ValueError("an hour is allocated that has begun")
    with role_scope("operator"), transaction.atomic(using="operator"), _cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (_LOCK, int(hour.timestamp()) // 3600))
        if not cursor.fetchone()[0]:
            return False
        # The mark comes first: what is settled between the two looks is in the figures at once, and makes
        # the mark differ at the next run.
        cursor.execute(_HOURS, {"from": hour, "to": hour + HOUR})
        ((_, mark),) = cursor.fetchall()
        rows = allocate(read_hour(cursor, hour=hour, until=until))
        cursor.execute("DELETE FROM quotas_allocatedhour WHERE hour = %s", (hour,))
        cursor.execute(
            "INSERT INTO quotas_allocatedhour (hour, covered_until, is_final, mark, allocated_at) "
            "VALUES (%s, %s, %s, %s, clock_timestamp())",
            (hour, until, now >= hour + HOUR + timedelta(seconds=grace_s), mark),
        )
        for table, values in rows.items():
            # All of a table in one statement: then the database checks that they add up.
            cursor.execute(
                f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb)",  # noqa: S608
                (json.dumps(values),),
            )
    return True


def _cursor() -> CursorWrapper:
    cursor = connections["operator"].cursor()
    cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
    return cursor


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
