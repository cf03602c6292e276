"""The audit names payments that were credited twice or not at all, and books that differ from Stripe's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from portal.kit.ids import PREFIXES, public_id
from quotas import audit
from quotas.models import RefundState
from quotas.tests.test_audit import broken, violated
from tests.database import rows_of
from tests.factories import make_tenant
from tests.factories_payments import (
    make_balance_transaction,
    make_dispute,
    make_refund,
    make_top_up,
    stripe_id,
)


@dataclass(frozen=True, slots=True)
class Payments:
    """A top-up with tax, a refund that succeeded, one that failed, and a dispute; all in both books."""

    top_up: UUID
    other: UUID
    refund: UUID
    failed: UUID
    dispute: UUID
    charge_line: str
    values: dict[str, Any]


@pytest.fixture(scope="module")
def payments(database: None) -> Payments:
    tenant = make_tenant(granted=None)
    top_up, other = (make_top_up(tenant, amount="20", tax="2") for _ in range(2))
    refund = make_refund(top_up, amount="5", tax="0.50")
    failed = make_refund(top_up, amount="3", tax="0.30", state=RefundState.FAILED)
    dispute = make_dispute(other, amount="7")
    (row,) = rows_of("quotas_topup", id=top_up)
    (other_row,) = rows_of("quotas_topup", id=other)
    charge_line = make_balance_transaction(amount="22", fee="0.90", source_id=row["charge_id"])
    (refund_row,) = rows_of("quotas_refund", id=refund)
    (failed_row,) = rows_of("quotas_refund", id=failed)
    return Payments(
        top_up,
        other,
        refund,
        failed,
        dispute,
        charge_line,
        {
            "top_up": top_up,
            "other": other,
            "refund": refund,
            "failed": failed,
            "dispute": dispute,
            "tenant": tenant.id,
            "line": charge_line,
            "transfer": row["transfer_id"],
            "other_transfer": other_row["transfer_id"],
            "refund_transfer": refund_row["transfer_id"],
            "reversal": failed_row["reversal_id"],
            "charge": row["charge_id"],
            "new_line": stripe_id("txn"),
        },
    )


_UNGUARDED_TOP_UP = "ALTER TABLE quotas_topup DISABLE TRIGGER quotas_guard_top_up;"
_UNGUARDED_REFUND = "ALTER TABLE quotas_refund DISABLE TRIGGER quotas_guard_refund;"
_OLD_TRANSFER = """
ALTER TABLE quotas_ledgertransfer DISABLE TRIGGER ledger_append_only;
UPDATE quotas_ledgertransfer SET posted_at = posted_at - interval '25 hours' WHERE id = %(other_transfer)s
"""

BREAKS = {
    "a paid top-up of another amount": (
        f"{_UNGUARDED_TOP_UP} UPDATE quotas_topup SET amount_nanos = amount_nanos - 5, "
        "gross_nanos = gross_nanos - 5 WHERE id = %(top_up)s",
        {"I7": "top_up"},
    ),
    "tax that was credited": (
        f"{_UNGUARDED_TOP_UP} UPDATE quotas_topup SET amount_nanos = amount_nanos + 5, "
        "tax_nanos = tax_nanos - 5 WHERE id = %(top_up)s",
        {"I7": "top_up"},
    ),
    "a credit without its top-up": (
        f"{_UNGUARDED_TOP_UP} ALTER TABLE quotas_topup DROP CONSTRAINT topup_ended; UPDATE quotas_topup "
        "SET state = 'OPEN', transfer_id = NULL, ended_at = NULL WHERE id = %(other)s",
        {"I7": "other_transfer"},
    ),
    "a charge that paid for two": (
        f"{_UNGUARDED_TOP_UP} UPDATE quotas_topup SET charge_id = %(charge)s WHERE id = %(other)s",
        {"I7": ""},
    ),
    "a refund whose money did not move": (
        f"{_UNGUARDED_REFUND} UPDATE quotas_refund SET amount_nanos = amount_nanos + 1, "
        "gross_nanos = gross_nanos + 1 WHERE id = %(refund)s",
        {"I7": "refund"},
    ),
    "a refund that failed and was not credited again": (
        f"{_UNGUARDED_REFUND} ALTER TABLE quotas_refund DROP CONSTRAINT refund_reversed_when_failed; "
        "UPDATE quotas_refund SET state = 'FAILED' WHERE id = %(refund)s",
        {"I7": "refund"},
    ),
    "a reversal of a refund that arrived": (
        f"{_UNGUARDED_REFUND} ALTER TABLE quotas_refund DROP CONSTRAINT refund_reversed_when_failed; "
        "UPDATE quotas_refund SET state = 'SUCCEEDED' WHERE id = %(failed)s",
        {"I7": "reversal"},
    ),
    "a refund of more than there was": (
        f"{_UNGUARDED_TOP_UP} {_UNGUARDED_REFUND} UPDATE quotas_topup SET amount_nanos = 1, tax_nanos = 0, "
        "gross_nanos = 1 WHERE id = %(top_up)s",
        {"I7": "top_up"},
    ),
    "a movement of a dispute that moved something else": (
        "UPDATE quotas_disputemovement SET taken_nanos = taken_nanos + 1 WHERE dispute_id = %(dispute)s",
        {"I7": "dispute"},
    ),
    "a chargeback without its movement": (
        "DELETE FROM quotas_disputemovement WHERE dispute_id = %(dispute)s",
        {"I7": ""},
    ),
    "a line of Stripe's with another amount": (
        "UPDATE quotas_balancetransaction SET amount_nanos = amount_nanos - 1 WHERE id = %(line)s",
        {"I8": "transfer"},
    ),
    "a fee with another amount": (
        "UPDATE quotas_balancetransaction SET fee_nanos = fee_nanos - 1 WHERE id = %(line)s",
        {"I8": ""},
    ),
    "an old line that was never posted": (
        """
        INSERT INTO quotas_balancetransaction (id, type, reporting_category, currency, amount_nanos,
          fee_nanos, source_id, created_at, available_at)
        VALUES (%(new_line)s, 'payout', 'payout', 'USD', -5, 0, 'po_1', now() - interval '25 hours', now())
        """,
        {"I8": "new_line"},
    ),
    "an old credit that Stripe knows nothing of": (_OLD_TRANSFER, {"I8": "other_transfer"}),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_named(name: str, payments: Payments) -> None:
    statements, expected = BREAKS[name]
    with broken(statements, payments.values):
        found = violated(audit.run(using="owner"))
    assert set(found) == set(expected), found
    values = payments.values
    names = {
        "top_up": public_id(PREFIXES["top_up"], payments.top_up),
        "refund": public_id(PREFIXES["refund"], payments.refund),
        "dispute": public_id(PREFIXES["dispute"], payments.dispute),
        "new_line": values["new_line"],
        **{
            one: public_id(PREFIXES["transfer"], values[one])
            for one in ("transfer", "other_transfer", "reversal")
        },
    }
    for code, thing in expected.items():
        if thing:
            assert (found[code].violations, found[code].examples) == (1, [names[thing]]), code
    assert violated(audit.run()) == {}


def test_what_is_young_may_still_be_on_its_way(payments: Payments) -> None:
    """The dispute, the refunds and the other top-up have no line of Stripe's yet, and nothing is wrong."""
    make_balance_transaction(type="payout", amount="-3.00", source_id=stripe_id("po"))
    assert violated(audit.run()) == {}
