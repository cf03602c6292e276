"""What an installation allows in payments: amounts, how many at a time, and when a debt stops service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from portal.kit.money import (
    NANOS_PER_UNIT,
    InvalidAmount,
    UnknownCurrency,
    parse_amount,
    to_minor_units,
)


@dataclass(frozen=True, slots=True)
class PaymentPolicy:
    """Amounts are nano-units, of whatever currency the wallet has.

    offered: the operator's list by currency; "" stands for those without a list of their own. lowest_nanos,
    highest_nanos: bounds of what people type in themselves, where is_free says that they may.
    open_top_ups: how many an organization may have open. session_lifetime: of a page to pay on.
    takes_tax: Stripe calculates tax, on top of the amount. makes_invoices: Stripe makes one for each top-up.
    receivable_limit_nanos: an organization that owes more is suspended.
    """

    offered: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    is_free: bool = True
    lowest_nanos: int = 5 * NANOS_PER_UNIT
    highest_nanos: int = 10_000 * NANOS_PER_UNIT
    open_top_ups: int = 10
    session_lifetime: timedelta = timedelta(hours=1)
    takes_tax: bool = False
    makes_invoices: bool = True
    receivable_limit_nanos: int = 0

    def amounts(self, currency: str) -> tuple[int, ...]:
        """The operator's list for a currency, ascending."""
        return self.offered.get(currency) or self.offered.get("", ())

    def offers(self, amount_nanos: int, currency: str) -> bool:
        """Whether this amount can be bought: it is in the list, or free within the limits."""
        try:
            minor_units = to_minor_units(amount_nanos, currency)
        except (InvalidAmount, UnknownCurrency):
            return False
        is_within = self.is_free and self.lowest_nanos <= amount_nanos <= self.highest_nanos
        return minor_units > 0 and (is_within or amount_nanos in self.amounts(currency))


def payment_policy() -> PaymentPolicy:
    """As the installation is configured."""
    tuning = settings.TUNING
    return PaymentPolicy(
        offered=parse_offer(settings.TOP_UP_AMOUNTS),
        is_free=bool(tuning["SLUICE_TOP_UP_FREE"]),
        lowest_nanos=tuning["SLUICE_TOP_UP_LOWEST_UNITS"] * NANOS_PER_UNIT,
        highest_nanos=tuning["SLUICE_TOP_UP_HIGHEST_UNITS"] * NANOS_PER_UNIT,
        open_top_ups=tuning["SLUICE_OPEN_TOP_UPS"],
        session_lifetime=timedelta(seconds=tuning["SLUICE_CHECKOUT_S"]),
        takes_tax=bool(tuning["SLUICE_PAYMENTS_TAX"]),
        makes_invoices=bool(tuning["SLUICE_PAYMENTS_INVOICES"]),
        receivable_limit_nanos=tuning["SLUICE_RECEIVABLE_LIMIT_UNITS"] * NANOS_PER_UNIT,
    )


def parse_offer(entries: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Amounts by currency of entries such as `20` and `CNY:100`; those without a currency stand under "".

    Errors: ImproperlyConfigured.
    """
    found: dict[str, set[int]] = {}
    for entry in entries:
        currency, _, text = entry.rpartition(":")
        try:
            amount_nanos = parse_amount(text)
            if currency:
                to_minor_units(amount_nanos, currency)
        except (InvalidAmount, UnknownCurrency):
            raise ImproperlyConfigured(
                f"SLUICE_TOP_UP_AMOUNTS holds {entry!r}; entries are amounts such as 20 or CNY:100"
            ) from None
        if amount_nanos <= 0:
            raise ImproperlyConfigured(f"SLUICE_TOP_UP_AMOUNTS holds {entry!r}; amounts are positive")
        found.setdefault(currency, set()).add(amount_nanos)
    return {currency: tuple(sorted(amounts)) for currency, amounts in found.items()}
