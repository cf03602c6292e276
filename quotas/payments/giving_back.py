"""How much one operator gives back alone within a day, by refunds and credit notes together."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connections
from django.db.models import Sum

from portal.kit.money import NANOS_PER_UNIT
from quotas.models import CreditNote, CreditNoteState, Refund, RefundState
from tenants.scope import scope_alias

LIMIT_PERIOD: Final = timedelta(hours=24)
LOCK_TIMEOUT_MS: Final = 5_000


class AboveLimit(PermissionError):
    """More than one operator gives back within LIMIT_PERIOD; `left_nanos` (gross) is what is left of that.

    What is above it is given back at Stripe by somebody who may do that, and heard of from there.
    """

    def __init__(self, left_nanos: int) -> None:
        super().__init__(f"{left_nanos} nano-units are left of the operator's limit")
        self.left_nanos = left_nanos


def lock_orders_of(operator_id: UUID) -> None:
    """Orders that an operator gives at once count each other. In the caller's transaction, as its first."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_TIMEOUT_MS}ms"])
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"giving_back:{operator_id}"]
        )


def check_limit(operator_id: UUID, gross_nanos: int, now: datetime) -> None:
    """Currencies are added up as if they were one, so that several of them are no way around it; nor is
    doing one half by refunds and the other by credit notes. Errors: AboveLimit."""
    limit_nanos = settings.TUNING["SLUICE_REFUND_LIMIT_UNITS"] * NANOS_PER_UNIT
    ordered = {"ordered_by_id": operator_id, "ordered_at__gt": now - LIMIT_PERIOD}
    refunds = Refund.objects.filter(**ordered).exclude(state=RefundState.FAILED)
    notes = CreditNote.objects.filter(**ordered).exclude(state=CreditNoteState.FAILED)
    spent = (refunds.aggregate(sum=Sum("gross_nanos"))["sum"] or 0) + (
        notes.aggregate(sum=Sum("amount_nanos"))["sum"] or 0
    )
    if int(spent) + gross_nanos > limit_nanos:
        raise AboveLimit(max(0, limit_nanos - int(spent)))
