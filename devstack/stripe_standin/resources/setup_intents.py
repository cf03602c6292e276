"""Setup intents: made by checkout sessions that save a method and charge nothing."""

from __future__ import annotations

from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, token


def make(world: World, *, customer: str | None, metadata: dict[str, str], methods: list[str]) -> Obj:
    identifier = new_id("seti")
    intent = world.put(
        {
            "id": identifier,
            "object": "setup_intent",
            "application": None,
            "automatic_payment_methods": None,
            "cancellation_reason": None,
            "client_secret": f"{identifier}_secret_{token(24)}",
            "created": world.now(),
            "customer": customer,
            "customer_account": None,
            "description": None,
            "excluded_payment_method_types": None,
            "flow_directions": None,
            "last_setup_error": None,
            "latest_attempt": None,
            "livemode": False,
            "managed_payments": None,
            "mandate": None,
            "metadata": metadata,
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {},
            "payment_method_types": methods,
            "single_use_mandate": None,
            "status": "requires_payment_method",
            "usage": "off_session",
        }
    )
    world.emit("setup_intent.created", intent)
    return intent


def succeed(world: World, intent: Obj, method: str) -> Obj:
    intent |= {"status": "succeeded", "payment_method": method}
    world.put(intent)
    world.emit("setup_intent.succeeded", intent)
    return intent


def fail(world: World, intent: Obj, error: Obj) -> Obj:
    intent["last_setup_error"] = error
    world.put(intent)
    world.emit("setup_intent.setup_failed", intent)
    return intent


@route("GET", "/v1/setup_intents/{intent}", "setup_intent_read")
def retrieve(call: Call) -> Obj:
    call.params.take("client_secret")
    return call.world.get("setup_intent", call.id)


@route("GET", "/v1/setup_intents", "setup_intent_read")
def list_all(call: Call) -> Obj:
    return listed(call, "setup_intent", "customer", "payment_method")
