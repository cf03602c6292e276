"""Payment intents, and the one place where money is taken: `attempt`."""

from __future__ import annotations

from devstack.stripe_standin.errors import ApiError, CommittedError, invalid, wrong_state
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import charges, payment_methods
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.settings import DELAYED_METHODS, REUSABLE_METHODS
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, shown, token

DELAYED_FOR_S = 3 * 86_400
# Most that a payment may be, in the smallest unit.
MOST = 99_999_999
_LEAST = 50

_MESSAGES = {
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "payment_failed": "The payment was refused by the bank.",
}


def make(
    world: World,
    *,
    amount: int,
    currency: str,
    customer: str | None,
    metadata: dict[str, str],
    description: str | None = None,
    receipt_email: str | None = None,
    setup_future_usage: str | None = None,
    methods: list[str] | None = None,
    automatic: bool = False,
) -> Obj:
    """An intent that waits for a payment method."""
    identifier = new_id("pi")
    intent = world.put(
        {
            "id": identifier,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": {"allow_redirects": "always", "enabled": True}
            if automatic
            else None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{identifier}_secret_{token(24)}",
            "confirmation_method": "automatic",
            "created": world.now(),
            "currency": currency,
            "customer": customer,
            "customer_account": None,
            "description": description,
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": metadata,
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {},
            "payment_method_types": methods or list(world.settings.methods),
            "processing": None,
            "receipt_email": receipt_email,
            "review": None,
            "setup_future_usage": setup_future_usage,
            "shipping": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
        }
    )
    world.emit("payment_intent.created", intent)
    return intent


def attempt(world: World, intent: Obj, method: Obj, *, on_session: bool) -> Obj | None:
    """Charges the method. None when the money came or is on its way, else the error as the API shows it."""
    if not on_session and method["type"] not in REUSABLE_METHODS:
        raise invalid("payment_method", f"A payment method of type {method['type']} can be used once only.")
    verdict = _verdict(world, method, on_session=on_session)
    intent["payment_method"] = method["id"]
    if verdict == "pays":
        _accept(world, intent, method)
        return None
    failure = _failure("authentication_required" if verdict == "authenticate" else verdict)
    charge = charges.make(world, intent, method, status="failed", failure=failure)
    _refuse(world, intent, failure, charge["id"], method)
    error: Obj = intent["last_payment_error"]
    return error | {"payment_intent": shown(intent)}


def _verdict(world: World, method: Obj, *, on_session: bool) -> str:
    left = int(world.store.recall("decline_next", 0))
    if left > 0:
        world.store.remember("decline_next", left - 1)
        return "generic_decline"
    return payment_methods.BEHAVIOURS[method["_behaviour"]][0 if on_session else 1]


def _accept(world: World, intent: Obj, method: Obj) -> None:
    intent["last_payment_error"] = intent["next_action"] = None
    if intent["setup_future_usage"] and intent["customer"] and method["type"] in REUSABLE_METHODS:
        payment_methods.attach(world, method, intent["customer"])
    if method["type"] in DELAYED_METHODS:
        intent["status"] = "processing"
        intent["_settles_at"] = world.now() + DELAYED_FOR_S
        intent["_will_fail"] = method["_behaviour"] == "fails_later"
        charge = charges.make(world, intent, method, status="pending")
        intent["latest_charge"] = charge["id"]
        world.put(intent)
        world.emit("payment_intent.processing", intent)
        return
    charge = charges.make(world, intent, method, status="succeeded")
    _succeed(world, intent, charge["id"])


def _succeed(world: World, intent: Obj, charge: str) -> None:
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge}
    world.put(intent)
    world.emit("payment_intent.succeeded", intent)


def _refuse(world: World, intent: Obj, failure: Obj, charge: str, method: Obj) -> None:
    error = {**failure, "charge": charge, "payment_method": shown(method), "type": "card_error"}
    intent |= {
        "status": "requires_payment_method",
        "latest_charge": charge,
        "payment_method": None,
        "last_payment_error": error,
    }
    world.put(intent)
    world.emit("payment_intent.payment_failed", intent)


def _failure(reason: str) -> Obj:
    code = reason if reason in ("authentication_required", "expired_card") else "card_declined"
    return {
        "code": code,
        "decline_code": reason,
        "doc_url": f"https://docs.stripe.com/error-codes/{code.replace('_', '-')}",
        "message": _MESSAGES.get(reason, "Your card was declined."),
    }


def settle(world: World, intent: Obj, *, fails: bool) -> None:
    """A payment that was on its way arrives, or doesn't."""
    charge = world.get("charge", intent["latest_charge"])
    intent["_settles_at"] = None
    if not fails:
        charges.settle(world, charge, None)
        _succeed(world, intent, charge["id"])
        return
    failure = {
        "code": "payment_intent_payment_attempt_failed",
        "doc_url": "https://docs.stripe.com/error-codes/payment-intent-payment-attempt-failed",
        "message": _MESSAGES["payment_failed"],
    }
    charges.settle(world, charge, failure)
    method = world.get("payment_method", charge["payment_method"])
    _refuse(world, intent, failure, charge["id"], method)


@route("POST", "/v1/payment_intents", "payment_intent_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    amount, currency = params.amount("amount"), params.currency()
    check_amount(amount, currency)
    customer = params.text("customer")
    if customer is not None:
        world.get("customer", customer, param="customer")
    automatic = params.child("automatic_payment_methods")
    enabled = automatic.flag("enabled", default=True)
    automatic.choice("allow_redirects", ("always", "never"))
    params.take("payment_method_options")
    params.text("statement_descriptor_suffix")
    params.choice("capture_method", ("automatic", "automatic_async"))
    methods = chosen_methods(world, params)
    calculation = _calculation(world, params, amount)
    confirm = params.flag("confirm")
    intent = make(
        world,
        amount=amount,
        currency=currency,
        customer=customer,
        metadata=params.metadata(),
        description=params.text("description"),
        receipt_email=params.text("receipt_email"),
        setup_future_usage=params.choice("setup_future_usage", ("off_session", "on_session")),
        methods=methods,
        automatic=enabled,
    )
    if calculation is not None:
        intent["hooks"] = {"inputs": {"tax": {"calculation": calculation}}}
        world.put(intent)
    method = _named_method(world, params, customer)
    if not confirm:
        for name in ("off_session", "error_on_requires_action", "return_url"):
            if params.has(name):
                raise invalid(name, f"You may only specify `{name}` when `confirm` is set to true.")
        if method is not None:
            intent |= {"payment_method": method["id"], "status": "requires_confirmation"}
            world.put(intent)
        return intent
    return _confirm(world, params, intent, method)


def _calculation(world: World, params: Params, amount: int) -> str | None:
    """The tax calculation that the amount was taken from."""
    named = params.child("hooks").child("inputs").child("tax").text("calculation")
    if named is None:
        return None
    total = world.get("tax.calculation", named, param="hooks[inputs][tax][calculation]")["amount_total"]
    if total != amount:
        raise invalid("amount", f"The amount ({amount}) is not the tax calculation's total ({total}).")
    return named


def _named_method(world: World, params: Params, customer: str | None) -> Obj | None:
    named = params.text("payment_method")
    if named is None:
        return None
    return payment_methods.resolve(world, named, customer=customer, param="payment_method")


def _confirm(world: World, params: Params, intent: Obj, method: Obj | None) -> Obj:
    """Confirms with what else was sent. Raises CommittedError for a decline: the attempt stays on record."""
    off_session = params.flag("off_session")
    params.flag("error_on_requires_action")
    params.text("return_url")
    if method is None:
        raise ApiError(
            400,
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either "
            "update the PaymentIntent with a payment method and then confirm it again, or confirm it again "
            "directly with a payment method or ConfirmationToken.",
            code="payment_intent_unexpected_state",
        )
    params.refuse_unread()
    error = attempt(world, intent, method, on_session=not off_session)
    if error is None:
        return intent
    details = {key: value for key, value in error.items() if key not in ("type", "message", "code")}
    raise CommittedError(
        ApiError(402, error["message"], kind="card_error", code=error["code"], executed=True, **details)
    )


@route("POST", "/v1/payment_intents/{intent}/confirm", "payment_intent_write")
def confirm(call: Call) -> Obj:
    intent = _in_state(call, "requires_payment_method", "requires_confirmation")
    method = _named_method(call.world, call.params, intent["customer"])
    if method is None and intent["payment_method"]:
        method = call.world.get("payment_method", intent["payment_method"])
    return _confirm(call.world, call.params, intent, method)


@route("POST", "/v1/payment_intents/{intent}/cancel", "payment_intent_write")
def cancel(call: Call) -> Obj:
    reasons = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
    reason = call.params.choice("cancellation_reason", reasons)
    intent = _in_state(call, "requires_payment_method", "requires_confirmation", "requires_action")
    intent |= {"status": "canceled", "canceled_at": call.world.now(), "cancellation_reason": reason}
    call.world.put(intent)
    call.world.emit("payment_intent.canceled", intent)
    return intent


def _in_state(call: Call, *states: str) -> Obj:
    intent = call.world.get("payment_intent", call.id)
    if intent["status"] not in states:
        raise wrong_state(
            f"This PaymentIntent's status is {intent['status']}; it has to be one of {', '.join(states)}.",
            code="payment_intent_unexpected_state",
            payment_intent=shown(intent),
        )
    return intent


@route("GET", "/v1/payment_intents/{intent}", "payment_intent_read")
def retrieve(call: Call) -> Obj:
    call.params.take("client_secret")
    return call.world.get("payment_intent", call.id)


@route("GET", "/v1/payment_intents", "payment_intent_read")
def list_all(call: Call) -> Obj:
    return listed(call, "payment_intent", "customer")


def check_amount(amount: int, currency: str) -> None:
    if amount > MOST:
        raise invalid("amount", "Amount must be no more than 999,999.99", code="amount_too_large")
    if currency == "usd" and amount < _LEAST:
        raise invalid("amount", "Amount must be at least $0.50 usd", code="amount_too_small")


def chosen_methods(world: World, params: Params) -> list[str]:
    """The methods that are offered: the account's, without those excluded, of those allowed."""
    if params.has("payment_method_types"):
        raise ApiError(
            400,
            "`payment_method_types` is no longer supported. Payment methods are chosen dynamically; use "
            "`allowed_payment_method_types` or `excluded_payment_method_types` to narrow them.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    excluded = set(params.texts("excluded_payment_method_types"))
    allowed = set(params.texts("allowed_payment_method_types"))
    chosen = [
        method
        for method in world.settings.methods
        if method not in excluded and (not allowed or method in allowed)
    ]
    if not chosen:
        raise invalid("allowed_payment_method_types", "No valid payment method types for this payment.")
    return chosen
