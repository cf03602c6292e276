"""Reading events. They are kept for 30 days of the account's clock."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.errors import invalid, no_such
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj

KEPT_S = 30 * 86_400
_UNDELIVERED = "EXISTS (SELECT 1 FROM deliveries WHERE event = objects.id AND state <> 'delivered')"


@route("GET", "/v1/events/{id}", "event_read")
def retrieve(call: Call) -> Obj:
    event = call.world.get("event", call.id)
    if event["created"] < call.world.now() - KEPT_S:
        raise no_such("event", call.id)
    return _counted(call, event)


@route("GET", "/v1/events", "event_read")
def list_all(call: Call) -> Obj:
    params = call.params
    types = params.texts("types")
    kind = params.text("type")
    if types and kind:
        raise invalid("type", "You may pass either `type` or `types`, but not both.")
    conditions, values = ["created >= ?"], [call.world.now() - KEPT_S]
    found: list[Any] = list(values)
    if kind and kind.endswith(".*"):
        conditions.append("json_extract(body, '$.type') LIKE ?")
        found.append(kind[:-1] + "%")
    elif kind or types:
        wanted = types or [kind or ""]
        conditions.append(f"json_extract(body, '$.type') IN ({', '.join('?' * len(wanted))})")
        found.extend(wanted)
    if params.has("delivery_success"):
        conditions.append(("NOT " if params.flag("delivery_success") else "") + _UNDELIVERED)
    page = listed(call, "event", also=" AND ".join(conditions), values=tuple(found))
    page["data"] = [_counted(call, event) for event in page["data"]]
    return page


def _counted(call: Call, event: Obj) -> Obj:
    """The event with the number of endpoints that have not acknowledged it yet."""
    row = call.world.store.db.execute(
        "SELECT count(DISTINCT endpoint) FROM deliveries WHERE event = ? AND state <> 'delivered'",
        (event["id"],),
    ).fetchone()
    return event | {"pending_webhooks": row[0]}
