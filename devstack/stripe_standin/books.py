"""The stand-in's own books: what a test compares the product's ledger with. Amounts in smallest units."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, shown

_CHARGE = ("id", "payment_intent", "customer", "amount", "amount_refunded", "currency", "status", "metadata")
_REFUND = ("id", "charge", "payment_intent", "amount", "currency", "status", "metadata")
_DISPUTE = ("id", "charge", "payment_intent", "amount", "currency", "status")
_TRANSACTION = ("id", "type", "reporting_category", "amount", "fee", "net", "currency", "source", "created")
_SESSION = (
    "id",
    "mode",
    "customer",
    "client_reference_id",
    "amount_subtotal",
    "amount_total",
    "currency",
    "status",
    "payment_status",
    "payment_intent",
    "invoice",
    "metadata",
)
_INVOICE = ("id", "customer", "status", "total", "amount_paid", "amount_remaining", "currency", "metadata")


def read_books(world: World) -> Obj:
    """Everything that happened to money, oldest first, and the events with how their delivery went."""
    return {
        "now": world.now(),
        "account": world.account_id,
        "sessions": _rows(world, "checkout.session", _SESSION),
        "charges": _rows(world, "charge", _CHARGE),
        "refunds": _rows(world, "refund", _REFUND),
        "disputes": [
            row | {"balance_transactions": [part["id"] for part in dispute["balance_transactions"]]}
            for row, dispute in _pairs(world, "dispute", _DISPUTE)
        ],
        "balance_transactions": [
            row | {"payout": transaction.get("_payout")}
            for row, transaction in _pairs(world, "balance_transaction", _TRANSACTION)
        ],
        "payouts": _rows(world, "payout", ("id", "amount", "currency", "status")),
        "invoices": _rows(world, "invoice", _INVOICE),
        "events": _events(world),
        "balance": _balance(world),
    }


def _pairs(world: World, kind: str, fields: tuple[str, ...]) -> list[tuple[Obj, Obj]]:
    found = world.store.find(kind, oldest_first=True)
    return [({field: shown(obj.get(field)) for field in fields}, obj) for obj in found]


def _rows(world: World, kind: str, fields: tuple[str, ...]) -> list[Obj]:
    return [row for row, _ in _pairs(world, kind, fields)]


def _events(world: World) -> list[Obj]:
    deliveries: dict[str, list[Any]] = {}
    for event, state, attempts, answer in world.store.db.execute(
        "SELECT event, state, attempts, answer FROM deliveries ORDER BY id"
    ):
        deliveries.setdefault(event, []).append({"state": state, "attempts": attempts, "answer": answer})
    return [
        {
            "id": event["id"],
            "type": event["type"],
            "created": event["created"],
            "object": event["data"]["object"].get("id"),
            "deliveries": deliveries.get(event["id"], []),
        }
        for event in world.store.find("event", oldest_first=True)
    ]


def _balance(world: World) -> dict[str, int]:
    """What the account has, by currency: all that was booked, payouts included."""
    sums: dict[str, int] = {}
    for transaction in world.store.find("balance_transaction"):
        sums[transaction["currency"]] = sums.get(transaction["currency"], 0) + transaction["net"]
    return sums
