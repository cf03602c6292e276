"""The one way to Stripe, or to what stands in for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache

import stripe
from django.conf import settings

TIMEOUT_S = 20.0
# It would log every request, and on a lower level what is in it.
logging.getLogger("stripe").setLevel(logging.WARNING)


class PaymentsNotConfigured(RuntimeError):
    """The installation has no key of Stripe, so it takes no payments by card."""


@dataclass(frozen=True, slots=True)
class StripeConfig:
    """How this installation talks to Stripe.

    webhook_secrets: newest first; two while they rotate; none refuses every event. api_base: where the API
    is, where that is not Stripe. account: that events must be of; empty: whichever the key belongs to.
    """

    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    api_base: str = ""
    account: str = ""

    @property
    def is_live(self) -> bool:
        return "_live_" in self.secret_key


def stripe_config() -> StripeConfig:
    """Errors: PaymentsNotConfigured."""
    config: StripeConfig | None = _from_settings()
    if config is None:
        raise PaymentsNotConfigured("STRIPE_SECRET_KEY is not set")
    return config


def takes_cards() -> bool:
    """Whether the installation has a key of Stripe."""
    return _from_settings() is not None


def stripe_client() -> stripe.StripeClient:
    """A client of the installation's account, in the API version of the SDK. It never retries by itself: what
    was asked is a row of ours, and is asked again from there. Errors: PaymentsNotConfigured."""
    return _client(stripe_config())


def _from_settings() -> StripeConfig | None:
    if not settings.STRIPE_SECRET_KEY:
        return None
    return StripeConfig(
        settings.STRIPE_SECRET_KEY,
        tuple(settings.STRIPE_WEBHOOK_SECRETS),
        settings.STRIPE_API_BASE,
        settings.STRIPE_ACCOUNT,
    )


@lru_cache(maxsize=8)
def _client(config: StripeConfig) -> stripe.StripeClient:
    return stripe.StripeClient(
        config.secret_key,
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        max_network_retries=0,
        base_addresses={"api": config.api_base} if config.api_base else {},
    )
