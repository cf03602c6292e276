"""Credit orders as pages show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from portal.backoffice.words import ORDER_NAMES, ORDER_STATES
from portal.pages.tags import amount_text
from quotas.credit.policy import CreditPolicy
from quotas.credit.queries import CreditOrderRow


@dataclass(frozen=True, slots=True)
class ShownOrder:
    """An order with its words; is_own: the operator who looks at it ordered it."""

    order: CreditOrderRow
    name: str
    tone: str
    state: str
    is_own: bool
    waits_s: float


def shown_orders(orders: Iterable[CreditOrderRow], *, operator_id: object, now: datetime) -> list[ShownOrder]:
    return [
        ShownOrder(
            order=one,
            name=str(ORDER_NAMES[one.kind]),
            tone=ORDER_STATES[one.state][0],
            state=str(ORDER_STATES[one.state][1]),
            is_own=one.ordered_by_id == operator_id,
            waits_s=(now - one.ordered_at).total_seconds(),
        )
        for one in orders
    ]


def line_in_use_text(used_nanos: int, currency: str) -> str:
    """Why a credit line cannot be as low as that."""
    used = amount_text(used_nanos, currency)
    return _("%(used)s of the credit line is in use; it cannot be less.") % {"used": used}


def takes_too_much_text(most_nanos: int, currency: str) -> str:
    """Why so much cannot be taken back."""
    most = amount_text(most_nanos, currency)
    return _("At most %(most)s is granted and not held by calls under way.") % {"most": most}


def credit_policy() -> CreditPolicy:
    """As the installation configures it."""
    return CreditPolicy.of_units(
        limit_units=settings.TUNING["SLUICE_CREDIT_LIMIT_UNITS"],
        line_limit_units=settings.TUNING["SLUICE_CREDIT_LINE_LIMIT_UNITS"],
    )
