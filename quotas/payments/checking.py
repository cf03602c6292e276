"""Is this installation set up for Stripe? Reads, and changes that must fail because they name nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import stripe
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from portal.kit.money import MINOR_DIGITS
from quotas.payments.client import StripeConfig, stripe_client, stripe_config, takes_cards
from quotas.payments.policy import payment_policy
from quotas.payments.sending import error_text

WEBHOOK_PATH: Final = "/webhooks/stripe"
# What the webhook endpoint has to send. Whatever else comes is ignored.
NEEDED_EVENTS: Final = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.canceled",
    "payment_method.detached",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "invoice.finalized",
    "invoice.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.overdue",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "credit_note.created",
    "credit_note.voided",
)
# The id of nothing: Stripe says no to it, with a key that may and with one that may not, in other words.
NOTHING: Final = "none_check_stripe"

Ask = Callable[[stripe.StripeClient], Any]


def _first(listing: Any) -> Any:
    return listing.list({"limit": 1})


# What a key must be allowed to do, as its page at Stripe names it → how that is tried.
SCOPES: Final[Mapping[str, Ask]] = MappingProxyType(
    {
        "Customers: write": lambda c: c.v1.customers.update(NOTHING, {"description": ""}),
        "Checkout Sessions: write": lambda c: c.v1.checkout.sessions.expire(NOTHING),
        "Customer portal: write": lambda c: c.v1.billing_portal.sessions.create({"customer": NOTHING}),
        "PaymentIntents: write": lambda c: c.v1.payment_intents.cancel(NOTHING),
        "PaymentMethods: read": lambda c: c.v1.payment_methods.retrieve(NOTHING),
        "SetupIntents: read": lambda c: _first(c.v1.setup_intents),
        "Charges and Refunds: write": lambda c: c.v1.refunds.create({"charge": NOTHING}),
        "Disputes: read": lambda c: _first(c.v1.disputes),
        "Events: read": lambda c: _first(c.v1.events),
        "Balance transactions: read": lambda c: _first(c.v1.balance_transactions),
        "Payouts: read": lambda c: _first(c.v1.payouts),
        "Invoices: write": lambda c: c.v1.invoices.finalize_invoice(NOTHING),
        "Credit notes: read": lambda c: _first(c.v1.credit_notes),
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. is_problem: payments do not work as they should until it is put right."""

    subject: str
    text: str
    is_problem: bool = False


def check_stripe() -> Iterator[Finding]:
    """Everything that was looked at, in order. No transaction may be open; nothing is changed."""
    if not takes_cards():
        yield Finding("Key", "STRIPE_SECRET_KEY is not set: no payments are taken through Stripe", True)
        return
    config, client = stripe_config(), stripe_client()
    yield Finding("Key", _describe_key(config))
    yield Finding("API version", stripe.api_version)
    account = _account(config, client)
    yield account
    if not account.is_problem:
        yield from (_scope(client, name, ask) for name, ask in SCOPES.items())
        yield from _webhook(client)
    yield _secrets(config)
    yield from _offer()


def _describe_key(config: StripeConfig) -> str:
    kind = "restricted" if config.secret_key.startswith("rk_") else "secret; restricted ones are safer"
    place = f", at {config.api_base}" if config.api_base else ""
    return f"{'live' if config.is_live else 'test'} mode, {kind}{place}"


def _account(config: StripeConfig, client: stripe.StripeClient) -> Finding:
    try:
        account = client.v1.accounts.retrieve_current().to_dict(for_json=True)
    except stripe.PermissionError:
        # Not all restricted keys may read it, and nothing else needs it.
        return Finding("Account", "reachable; this key may not read it")
    except stripe.StripeError as error:
        return Finding("Account", f"not reachable: {error_text(error)}", True)
    name = f"{account['id']}, {account.get('country') or 'no country'}"
    if config.account and config.account != account["id"]:
        return Finding("Account", f"{name}, but STRIPE_ACCOUNT is {config.account}", True)
    if not account.get("charges_enabled"):
        return Finding("Account", f"{name}, cannot take payments yet", config.is_live)
    return Finding("Account", name)


def _scope(client: stripe.StripeClient, name: str, ask: Ask) -> Finding:
    try:
        ask(client)
    except stripe.PermissionError:
        return Finding(name, "missing", True)
    except stripe.InvalidRequestError:
        # It may, and what it named does not exist.
        return Finding(name, "allowed")
    except stripe.StripeError as error:
        return Finding(name, f"cannot be tried: {error_text(error)}", True)
    return Finding(name, "allowed")


def _webhook(client: stripe.StripeClient) -> Iterator[Finding]:
    url = settings.PORTAL_URL.rstrip("/") + WEBHOOK_PATH
    try:
        listed = client.v1.webhook_endpoints.list({"limit": 100})
        endpoints = [one.to_dict() for one in listed.data if one.url == url]
    except stripe.PermissionError:
        yield Finding("Webhook", f"this key may not read it; it should be {url}")
        return
    except stripe.StripeError as error:
        yield Finding("Webhook", f"cannot be read: {error_text(error)}", True)
        return
    active = [one for one in endpoints if one["status"] == "enabled"]
    if not active:
        yield Finding("Webhook", f"no enabled endpoint is {url}", True)
    for one in active:
        missing = sorted(set(NEEDED_EVENTS) - set(one["enabled_events"]))
        if "*" not in one["enabled_events"] and missing:
            yield Finding("Webhook", f"{one['id']} does not send {', '.join(missing)}", True)
        elif one["api_version"] != stripe.api_version:
            version = one["api_version"] or "the account's default"
            yield Finding("Webhook", f"{one['id']} has API version {version}", True)
        else:
            yield Finding("Webhook", f"{one['id']}, {url}")


def _secrets(config: StripeConfig) -> Finding:
    secrets = config.webhook_secrets
    if not secrets:
        return Finding("Webhook secrets", "STRIPE_WEBHOOK_SECRETS is empty: every event is refused", True)
    if not all(secret.startswith("whsec_") for secret in secrets):
        return Finding("Webhook secrets", "one does not begin with whsec_", True)
    return Finding("Webhook secrets", f"{len(secrets)}{'; rotating' if len(secrets) > 1 else ''}")


def _offer() -> Iterator[Finding]:
    unknown = [currency for currency in settings.CURRENCIES if currency not in MINOR_DIGITS]
    if unknown:
        yield Finding("Currencies", f"the coins of {', '.join(unknown)} are not known", True)
    else:
        yield Finding("Currencies", ", ".join(settings.CURRENCIES))
    try:
        policy = payment_policy()
    except ImproperlyConfigured as error:
        yield Finding("Amounts", str(error), True)
        return
    without = [one for one in settings.CURRENCIES if not policy.is_free and not policy.amounts(one)]
    if without:
        yield Finding("Amounts", f"nothing is offered in {', '.join(without)}", True)
    else:
        yield Finding("Amounts", f"tax is {'calculated by Stripe' if policy.takes_tax else 'not calculated'}")
