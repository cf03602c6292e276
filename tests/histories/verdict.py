"""Whether a history ended well: our ledger and rows against the books of the other side."""

from __future__ import annotations

from collections import Counter
from typing import Any

from portal.kit.money import from_minor_units
from quotas.models import EventState, OperationState, RefundState, TopUpState
from tests.database import connected
from tests.factories import TenantFixture

# What Stripe counts as money that went back or is on its way.
AT_STRIPE = "e.account_id = quotas_account_id(NULL, 'STRIPE_CLEARING', e.currency)"
GONE = ("succeeded", "pending", "requires_action")


def problems_of(tenant: TenantFixture, books: dict[str, Any]) -> list[str]:
    """What is wrong between us and the books about one organization; nothing when all is well."""
    charges = _charges_of(tenant, books)
    found = _unfinished(tenant)
    found += _credits(tenant, charges)
    found += _refunds(tenant, charges, books)
    found += _disputes(tenant, charges, books)
    found += _sum(tenant, charges, books)
    return found


def _charges_of(tenant: TenantFixture, books: dict[str, Any]) -> dict[str, dict[str, Any]]:
    customers = {
        row[0] for row in _rows("SELECT customer_id FROM quotas_stripecustomer WHERE tenant_id = %s", tenant)
    }
    return {
        charge["id"]: charge
        for charge in books["charges"]
        if charge["status"] == "succeeded" and charge["customer"] in customers
    }


def _credits(tenant: TenantFixture, charges: dict[str, Any]) -> list[str]:
    """One paid object, one credit, of what was paid."""
    credited = Counter(
        (charge_id, gross)
        for charge_id, gross in _rows(
            "SELECT p.charge_id, -e.amount_nanos FROM quotas_topup p JOIN quotas_ledgerentry e"
            f" ON e.transfer_id = p.transfer_id AND {AT_STRIPE} WHERE p.tenant_id = %s",
            tenant,
        )
    )
    paid = Counter((charge["id"], _nanos(charge)) for charge in charges.values())
    transfers = _rows(
        "SELECT count(*) FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e"
        f" ON e.transfer_id = t.id AND {AT_STRIPE} WHERE t.tenant_id = %s AND t.kind = 'TOP_UP'",
        tenant,
    )[0][0]
    found = []
    if credited != paid:
        found.append(f"credited {credited - paid} too much, {paid - credited} too little")
    if transfers != len(paid):
        found.append(f"{transfers} credits for {len(paid)} payments")
    return found


def _refunds(tenant: TenantFixture, charges: dict[str, Any], books: dict[str, Any]) -> list[str]:
    ours = Counter(
        (refund_id, gross)
        for refund_id, gross in _rows(
            "SELECT refund_id, gross_nanos FROM quotas_refund WHERE tenant_id = %s AND state <> 'FAILED'",
            tenant,
        )
    )
    theirs = Counter(
        (row["id"], _nanos(row))
        for row in books["refunds"]
        if row["charge"] in charges and row["status"] in GONE
    )
    return [f"refunds: ours {ours - theirs}, theirs {theirs - ours}"] if ours != theirs else []


def _disputes(tenant: TenantFixture, charges: dict[str, Any], books: dict[str, Any]) -> list[str]:
    ours = Counter(
        (line, taken)
        for line, taken in _rows(
            "SELECT balance_transaction_id, taken_nanos FROM quotas_disputemovement WHERE tenant_id = %s",
            tenant,
        )
    )
    theirs = Counter((line["id"], -_nanos(line)) for line in _dispute_lines(charges, books))
    return [f"disputes: ours {ours - theirs}, theirs {theirs - ours}"] if ours != theirs else []


def _sum(tenant: TenantFixture, charges: dict[str, Any], books: dict[str, Any]) -> list[str]:
    """What passed through clearing is what is left at Stripe, fees apart."""
    ours = -_rows(
        "SELECT coalesce(sum(e.amount_nanos), 0)::bigint FROM quotas_ledgertransfer t"
        f" JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND {AT_STRIPE} WHERE t.tenant_id = %s",
        tenant,
    )[0][0]
    theirs = sum(map(_nanos, charges.values()))
    theirs -= sum(
        _nanos(row) for row in books["refunds"] if row["charge"] in charges and row["status"] in GONE
    )
    theirs += sum(map(_nanos, _dispute_lines(charges, books)))
    return [f"clearing has {ours}, Stripe {theirs}"] if ours != theirs else []


def _unfinished(tenant: TenantFixture) -> list[str]:
    """Nothing hangs: every operation, top-up and refund has come to its end, or to one that a person ends."""
    operations = _rows(
        "SELECT kind, attempts, error_code FROM quotas_stripeoperation WHERE tenant_id = %s AND state = %s",
        tenant,
        OperationState.PENDING,
    )
    top_ups = _rows(
        "SELECT source, state FROM quotas_topup WHERE tenant_id = %s AND (state IN (%s, %s))",
        tenant,
        TopUpState.OPEN,
        TopUpState.PROCESSING,
    )
    refunds = _rows(
        "SELECT id FROM quotas_refund WHERE tenant_id = %s AND state = %s AND refund_id IS NULL",
        tenant,
        RefundState.PENDING,
    )
    events = _rows(
        "SELECT type, error FROM quotas_stripeevent"
        " WHERE payload -> 'data' -> 'object' -> 'metadata' ->> 'tenant' = %s AND state NOT IN (%s, %s)",
        tenant,
        EventState.PROCESSED,
        EventState.IGNORED,
        key=tenant.public_id,
    )
    hanging = {"operations": operations, "top-ups": top_ups, "refunds": refunds, "events": events}
    return [f"{what} without an end: {rows}" for what, rows in hanging.items() if rows]


def _dispute_lines(charges: dict[str, Any], books: dict[str, Any]) -> list[dict[str, Any]]:
    about = {
        line for row in books["disputes"] if row["charge"] in charges for line in row["balance_transactions"]
    }
    return [line for line in books["balance_transactions"] if line["id"] in about]


def _nanos(row: dict[str, Any]) -> int:
    return from_minor_units(row["amount"], row["currency"].upper())


def _rows(query: str, tenant: TenantFixture, *parameters: Any, key: Any = None) -> list[Any]:
    with connected("operator") as connection:
        return connection.execute(query, (key or tenant.id, *parameters)).fetchall()
