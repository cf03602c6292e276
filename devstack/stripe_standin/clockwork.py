"""What happens because time passes: delayed payments arrive, sessions expire, money becomes available."""

from __future__ import annotations

from devstack.stripe_standin.resources import (
    balance,
    checkout,
    checkout_flow,
    invoice_states,
    payment_intents,
)
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World


def pass_time(world: World) -> None:
    """Brings everything up to the account's clock. Safe to run at any time, inside a transaction."""
    now = world.now()
    due = "json_extract(body, '$._settles_at') <= ?"
    for intent in world.store.find("payment_intent", {"status": "processing"}, also=due, values=(now,)):
        settle_payment(world, intent, fails=intent["_will_fail"])
    late = "json_extract(body, '$.expires_at') <= ?"
    for session in world.store.find("checkout.session", {"status": "open"}, also=late, values=(now,)):
        checkout.expire(world, session)
    invoice_states.pass_time(world)
    balance.settle(world)


def settle_payment(world: World, intent: Obj, *, fails: bool) -> None:
    """A delayed payment arrives, or doesn't; whatever waited for it is told."""
    payment_intents.settle(world, intent, fails=fails)
    invoice_states.follow(world, intent)
    checkout_flow.follow(world, intent)
