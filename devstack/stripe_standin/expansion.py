"""`expand`: ids that turn into objects, and lists that are shown on demand only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World

_KINDS = {
    "ch": "charge",
    "cn": "credit_note",
    "cs": "checkout.session",
    "cus": "customer",
    "du": "dispute",
    "ii": "invoiceitem",
    "in": "invoice",
    "pi": "payment_intent",
    "pm": "payment_method",
    "po": "payout",
    "py": "charge",
    "pyr": "refund",
    "re": "refund",
    "seti": "setup_intent",
    "txn": "balance_transaction",
}

Included = Callable[[World, Obj], Any]
# (kind of object, field) → what the field holds when it is asked for.
INCLUDED: dict[tuple[str, str], Included] = {}


def included(kind: str, field: str) -> Callable[[Included], Included]:
    """Registers a field that is shown only when it is expanded."""

    def register(make: Included) -> Included:
        INCLUDED[kind, field] = make
        return make

    return register


def expand(world: World, answer: Obj, paths: list[str]) -> Obj:
    """The answer with these paths expanded. Raises ApiError for one that can't be."""
    for path in paths:
        parts = path.split(".")
        if len(parts) > 5:
            raise ApiError(400, "You cannot expand more than 4 levels of a property.", param="expand")
        _expand(world, answer, parts, path)
    return answer


def _expand(world: World, at: Obj, parts: list[str], path: str) -> None:
    field, rest = parts[0], parts[1:]
    if (at.get("object"), field) in INCLUDED and not isinstance(at.get(field), dict):
        at[field] = INCLUDED[at["object"], field](world, at)
    elif field not in at:
        raise ApiError(
            400,
            f"This property cannot be expanded ({path}).",
            param="expand",
        )
    value = at[field]
    if isinstance(value, str):
        kind = _KINDS.get(value.split("_", 1)[0])
        found = world.store.get(kind, value) if kind else None
        if found is None:
            raise ApiError(400, f"This property cannot be expanded ({path}).", param="expand")
        value = at[field] = found
    if not rest:
        return
    for below in value if isinstance(value, list) else [value]:
        if isinstance(below, dict):
            _expand(world, below, rest, path)
