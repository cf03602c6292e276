"""What the states of operators' work are called on their pages."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_lazy, pgettext_lazy

from quotas.models import CreditOrderKind, CreditOrderState
from tenants.models import TenantState

ORDER_KINDS: Final = {
    CreditOrderKind.GRANT: gettext_lazy("Grant free credit"),
    CreditOrderKind.GOODWILL: gettext_lazy("Make up for something (goodwill)"),
    CreditOrderKind.TAKE_BACK: gettext_lazy("Take granted credit back"),
    CreditOrderKind.CREDIT_LINE: gettext_lazy("Set the credit line"),
}
ORDER_NAMES: Final = {
    CreditOrderKind.GRANT: pgettext_lazy("order", "Grant"),
    CreditOrderKind.GOODWILL: gettext_lazy("Goodwill"),
    CreditOrderKind.TAKE_BACK: pgettext_lazy("order", "Take back"),
    CreditOrderKind.CREDIT_LINE: gettext_lazy("Credit line"),
}
# The tone of a badge, and the word in it.
ORDER_STATES: Final = {
    CreditOrderState.WAITING: ("warn", gettext_lazy("Waits for a second operator")),
    CreditOrderState.POSTED: ("ok", pgettext_lazy("order", "Carried out")),
    CreditOrderState.REFUSED: ("bad", pgettext_lazy("order", "Refused")),
    CreditOrderState.WITHDRAWN: ("quiet", pgettext_lazy("order", "Withdrawn")),
}
TENANT_STATES: Final = {
    TenantState.ACTIVE: ("ok", gettext_lazy("Active")),
    TenantState.SUSPENDED: ("bad", gettext_lazy("Suspended")),
    TenantState.CLOSED: ("quiet", gettext_lazy("Closed")),
}
