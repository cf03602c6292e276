"""Postings of long ago, and months that are closed for one test only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from uuid import UUID

from django.db import connections, transaction

from quotas.books.closing import Month
from tenants.scope import role_scope
from tests.database import connected

FIRST = Month(date(2001, 1, 1))
SECOND = Month(date(2001, 2, 1))


def move_to(tenant_id: UUID, at: datetime) -> None:
    """All that was posted for the tenant so far was posted at that moment, or at an earlier one it had."""
    with connected("owner", autocommit=False) as owner:
        owner.execute("ALTER TABLE quotas_ledgertransfer DISABLE TRIGGER ledger_append_only")
        owner.execute(
            "UPDATE quotas_ledgertransfer SET posted_at = %s WHERE tenant_id = %s AND posted_at > %s",
            (at, tenant_id, at),
        )
        owner.execute("ALTER TABLE quotas_ledgertransfer ENABLE TRIGGER ledger_append_only")
        owner.commit()


@contextmanager
def closed_for_the_test() -> Iterator[None]:
    """What is closed meanwhile is open again afterwards."""
    try:
        yield
    finally:
        with connected("owner") as owner:
            for table in ("quotas_closedbalance", "quotas_closedmonth"):
                owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                owner.execute(f"DELETE FROM {table}")
                owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@contextmanager
def never_happened() -> Iterator[None]:
    """A scope of the owner; what is posted in it is rolled back, since no payment of ours explains it."""
    with role_scope("owner"), transaction.atomic(using="owner"):
        with connections["owner"].cursor() as cursor:
            cursor.execute("ALTER TABLE quotas_ledgertransfer DISABLE TRIGGER ledger_append_only")
        yield
        transaction.set_rollback(True, using="owner")


def was_at(at: datetime) -> None:
    """In never_happened: what was posted since the last time was posted at that moment."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_ledgertransfer SET posted_at = %s "
            "WHERE posted_at >= now() AND posted_at <= clock_timestamp()",
            [at],
        )
