"""What the database says after a fault: holds, usage, what is held, and whether every invariant stands."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from portal.kit.ids import PREFIXES, parse_public_id
from quotas import audit
from tests.database import connected, money_of, rows_of
from tests.waiting import wait_for

INPUT_PRICE_NANOS = 1_000
OUTPUT_PRICE_NANOS = 2_000


def database_clock() -> datetime:
    with connected("operator") as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment


def holds_of(tenant_id: UUID) -> dict[UUID, dict[str, Any]]:
    """The holds of an organization by request."""
    return {row["request_id"]: row for row in rows_of("quotas_hold", tenant_id=tenant_id)}


def usage_of(tenant_id: UUID) -> dict[UUID, list[dict[str, Any]]]:
    """The usage records of an organization by request, oldest revision first."""
    records: dict[UUID, list[dict[str, Any]]] = {}
    for row in sorted(rows_of("quotas_usagerecord", tenant_id=tenant_id), key=lambda row: row["revision"]):
        records.setdefault(row["request_id"], []).append(row)
    return records


def posted_nanos(request_id: UUID) -> list[int]:
    """What each transfer of a call took from the organization, in the order of the revisions."""
    with connected("operator") as connection:
        rows = connection.execute(
            "SELECT -sum(e.amount_nanos)::bigint FROM quotas_ledgertransfer t "
            "JOIN quotas_ledgerentry e ON e.transfer_id = t.id WHERE t.request_id = %s "
            "AND e.tenant_id IS NOT NULL GROUP BY t.revision ORDER BY t.revision",
            (request_id,),
        ).fetchall()
    return [row[0] for row in rows]


def price_nanos(prompt_tokens: int, completion_tokens: int) -> int:
    """At the factories' default prices, which need no rounding."""
    return prompt_tokens * INPUT_PRICE_NANOS + completion_tokens * OUTPUT_PRICE_NANOS


def pending_holds(tenant_id: UUID) -> int:
    return sum(1 for hold in holds_of(tenant_id).values() if hold["state"] == "PENDING")


def is_nothing_held(tenant_id: UUID) -> bool:
    return pending_holds(tenant_id) == 0 and money_of(tenant_id).pending == 0


def wait_nothing_held(*tenant_ids: UUID, timeout_s: float = 15.0) -> None:
    """Return once none of them has an open hold. Errors: TimeoutError."""
    for tenant_id in tenant_ids:
        wait_for(partial(is_nothing_held, tenant_id), timeout_s, "no open hold")


def assert_audit_holds() -> None:
    """Every invariant, over the whole database."""
    violated = [result for result in audit.run() if not result.holds]
    assert not violated, violated


def attempts_without_a_row(header_ids: list[str]) -> list[str]:
    """Which of the attempt ids that an engine was given have no durable attempt, request and hold."""
    missing = []
    with connected("operator") as connection:
        for text in header_ids:
            attempt_id = parse_public_id(PREFIXES["attempt"], text)
            if not _is_recorded(connection, attempt_id):
                missing.append(text)
    return missing


def _is_recorded(connection: psycopg.Connection[Any], attempt_id: UUID) -> bool:
    found = connection.execute(
        "SELECT 1 FROM quotas_attempt a JOIN quotas_inferencerequest q ON q.id = a.request_id "
        "JOIN quotas_hold h ON h.request_id = a.request_id WHERE a.id = %s",
        (attempt_id,),
    ).fetchone()
    return found is not None
