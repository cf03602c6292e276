"""The invariants of the ledger, checked over the whole database in one consistent snapshot."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from portal.kit.ids import PREFIXES, public_id
from quotas.audit.invariants import INVARIANTS, Invariant
from quotas.audit.payments import PAYMENT_INVARIANTS
from quotas.audit.reconciliation import RECONCILIATION_INVARIANTS
from quotas.audit.tenancy import tenancy_violations
from tenants.scope import role_scope

__all__ = ["MAX_EXAMPLES", "InvariantResult", "run"]

MAX_EXAMPLES = 5
STATEMENT_TIMEOUT_S = 250


@dataclass(frozen=True, slots=True)
class InvariantResult:
    """What one invariant came to.

    violations: how many things break it. examples: public ids of at most MAX_EXAMPLES of them, or Stripe's.
    """

    code: str
    title: str
    holds: bool
    violations: int
    examples: list[str]


def run(*, using: str = "operator") -> list[InvariantResult]:
    """Check every invariant; the results in their order. Reads only, and all of it in one snapshot.

    using: the database role to read as, which must see every organization. When a transaction is open
    on its connection already, its rows are what is checked, uncommitted ones too.
    Errors: django.db.OperationalError when a check takes longer than STATEMENT_TIMEOUT_S.
    """
    with role_scope(using), _snapshot(using) as cursor:
        results = [
            _check(cursor, invariant, invariant.violations_sql)
            for invariant in (*INVARIANTS, *PAYMENT_INVARIANTS, *RECONCILIATION_INVARIANTS)
        ]
        results.append(_check(cursor, TENANCY, tenancy_violations(cursor)))
    return sorted(results, key=lambda result: int(result.code.removeprefix("I")))


TENANCY = Invariant("I13", "every row's tenant agrees along its foreign keys", "")


@contextmanager
def _snapshot(using: str) -> Iterator[CursorWrapper]:
    connection = connections[using]
    is_outermost = not connection.in_atomic_block
    with transaction.atomic(using=using), connection.cursor() as cursor:
        if is_outermost:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
            # The checks are hash joins and sorts over whole tables, one after the other.
            cursor.execute("SET LOCAL work_mem = '64MB'")
        yield cursor


def _check(cursor: CursorWrapper, invariant: Invariant, violations_sql: str) -> InvariantResult:
    # One thing that breaks an invariant in two ways is one violation.
    cursor.execute(
        f"SELECT what, id, count(*) OVER () FROM (SELECT DISTINCT what, id FROM ({violations_sql}) "  # noqa: S608
        f"AS v(what, id)) AS d ORDER BY what, id LIMIT {MAX_EXAMPLES}"
    )
    rows = cursor.fetchall()
    violations = int(rows[0][2]) if rows else 0
    examples = [_named(what, row_id) for what, row_id, _ in rows]
    return InvariantResult(invariant.code, invariant.title, violations == 0, violations, examples)


def _named(what: str, row_id: object) -> str:
    """As people know it; what is Stripe's has Stripe's name."""
    return public_id(PREFIXES[what], UUID(str(row_id))) if what in PREFIXES else str(row_id)
