"""What the control API can make happen: the acts of people, banks and the dashboard.

Each takes the names that its JSON body has, and returns what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devstack.stripe_standin.clockwork import settle_payment
from devstack.stripe_standin.errors import invalid, wrong_state
from devstack.stripe_standin.resources import (
    checkout,
    checkout_flow,
    customers,
    disputes,
    payment_methods,
    payouts,
    refunds,
)
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, shown

Command = Callable[..., Any]
COMMANDS: dict[str, Command] = {}


def command(function: Command) -> Command:
    """Registers a command under its own name."""
    COMMANDS[function.__name__] = function
    return function


@command
def complete_session(
    world: World,
    session: str,
    method: str = "card",
    behaviour: str = "pays",
    last4: str = "4242",
    country: str | None = None,
) -> Obj:
    """A person confirms the hosted page. behaviour: see payment_methods.BEHAVIOURS."""
    found = world.get("checkout.session", session)
    refusal = checkout_flow.complete(
        world, found, method=method, behaviour=behaviour, last4=last4, country=country
    )
    return {"refusal": refusal, "session": shown(world.get("checkout.session", session))}


@command
def expire_session(world: World, session: str) -> Obj:
    """A person went away and the session has ended."""
    found = world.get("checkout.session", session)
    if found["status"] != "open":
        raise wrong_state(f"The session is {found['status']}.")
    return _shown(checkout.expire(world, found))


@command
def settle(world: World, payment: str, fails: bool = False) -> Obj:
    """A delayed payment (pi_… or cs_…) arrives or fails now."""
    if payment.startswith("cs_"):
        payment = world.get("checkout.session", payment)["payment_intent"]
    intent = world.get("payment_intent", payment)
    if intent["status"] != "processing":
        raise wrong_state(f"The payment is {intent['status']}.")
    settle_payment(world, intent, fails=fails)
    return _shown(world.get("payment_intent", payment))


@command
def refund(world: World, payment: str, amount: int | None = None, reason: str | None = None) -> Obj:
    """A refund in the dashboard, of a pi_…, ch_… or cs_…. amount: smallest unit; all that is left."""
    return _shown(refunds.make(world, _charge(world, payment), amount=amount, reason=reason, metadata={}))


@command
def settle_refund(world: World, refund: str) -> Obj:
    return _shown(refunds.settle(world, world.get("refund", refund)))


@command
def fail_refund(world: World, refund: str, reason: str = "lost_or_stolen_card") -> Obj:
    return _shown(refunds.fail(world, world.get("refund", refund), reason))


@command
def open_dispute(
    world: World,
    payment: str,
    amount: int | None = None,
    reason: str = "fraudulent",
    inquiry: bool = False,
) -> Obj:
    charge = _charge(world, payment)
    return _shown(disputes.open_dispute(world, charge, amount=amount, reason=reason, inquiry=inquiry))


@command
def escalate_dispute(world: World, dispute: str) -> Obj:
    return _shown(disputes.escalate(world, world.get("dispute", dispute)))


@command
def close_dispute(world: World, dispute: str, won: bool, fee_returned: bool = False) -> Obj:
    return _shown(disputes.close(world, world.get("dispute", dispute), won=won, fee_returned=fee_returned))


@command
def make_payout(world: World, only_available: bool = False) -> list[Obj]:
    """Pays out everything; only_available: only what was booked two days ago."""
    return [_shown(payout) for payout in payouts.make(world, only_available=only_available)]


@command
def decline_next(world: World, count: int) -> Obj:
    """The next attempts to charge anything are declined, whatever the method."""
    world.store.remember("decline_next", count)
    return {}


@command
def save_card(
    world: World, customer: str, behaviour: str = "pays", last4: str = "4242", default: bool = True
) -> Obj:
    """A person saves a card in the customer portal."""
    found = world.get("customer", customer)
    _known_behaviour(behaviour)
    method = payment_methods.make(world, "card", behaviour=behaviour, last4=last4)
    payment_methods.attach(world, method, customer)
    if default:
        before = shown(found)
        found["invoice_settings"]["default_payment_method"] = method["id"]
        customers.save(world, found, before)
    return _shown(method)


@command
def set_behaviour(world: World, payment_method: str, behaviour: str) -> Obj:
    """The bank changes its mind about a card."""
    _known_behaviour(behaviour)
    method = world.get("payment_method", payment_method)
    method["_behaviour"] = behaviour
    return _shown(world.put(method))


@command
def detach_card(world: World, payment_method: str) -> Obj:
    """A person removes a card in the customer portal."""
    return _shown(payment_methods.unattach(world, world.get("payment_method", payment_method)))


def _known_behaviour(behaviour: str) -> None:
    if behaviour not in payment_methods.BEHAVIOURS:
        raise invalid("behaviour", f"There are {', '.join(payment_methods.BEHAVIOURS)}.")


def _charge(world: World, payment: str) -> Obj:
    """The charge of a payment, however it was named."""
    if payment.startswith("cs_"):
        payment = world.get("checkout.session", payment)["payment_intent"] or ""
    if payment.startswith("pi_"):
        payment = world.get("payment_intent", payment)["latest_charge"] or ""
    return world.get("charge", payment)


def _shown(obj: Obj) -> Obj:
    found: Obj = shown(obj)
    return found
