"""What operators see of payments at a glance. As operator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, F, Min, Q, Sum
from django.db.models.functions import Coalesce

from portal.kit.ids import partition_bound
from quotas.models import (
    Dispute,
    EventSource,
    EventState,
    OperationState,
    Refund,
    RefundState,
    StripeEvent,
    StripeOperation,
    TopUp,
    TopUpState,
    Wallet,
)
from quotas.payments.inbox_queries import CursorRow, count_events, last_event, list_cursors
from quotas.payments.polling import EVENTS_CURSOR

DAYS: Final = 30
# However long a payment takes from its beginning to its end.
_LONGEST: Final = timedelta(days=60)
# What is asked and answered every minute or two is silent for longer than this only when something is wrong.
SILENT_AFTER: Final = timedelta(minutes=15)
MISSED_TURNS: Final = 3
_WEBHOOK_PERIOD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Amount:
    """How many, and what they come to in nano-units of a currency."""

    count: int = 0
    nanos: int = 0


@dataclass(frozen=True, slots=True)
class CurrencyFigures:
    """Payments of one currency. Top-ups: the credit of those that were paid today (UTC), and within DAYS.
    Refunds: the credit that went back, or is on its way. Disputes that are open, and what is owed."""

    currency: str
    top_ups_today: Amount
    top_ups: Amount
    refunds_today: Amount
    refunds: Amount
    disputes: Amount
    owed: Amount


@dataclass(frozen=True, slots=True)
class Overview:
    """events_failed: counted no further than a thousand. waiting_since: the oldest event that nobody has
    processed. missed: events of the last day that the poller found and no webhook had brought.
    """

    currencies: tuple[CurrencyFigures, ...]
    evidence_due_at: datetime | None
    events_failed: int
    waiting_since: datetime | None
    operations_pending: int
    pending_since: datetime | None
    cursors: tuple[CursorRow, ...]
    last_webhook_at: datetime | None
    missed: int

    def polled_at(self) -> datetime | None:
        """When Stripe was last asked for events; None when it never was."""
        asked = (cursor.polled_at for cursor in self.cursors if cursor.name == EVENTS_CURSOR)
        return next(asked, None)

    def is_poller_silent(self, now: datetime) -> bool:
        """For longer than a few turns, however rarely the installation asks."""
        polled_at = self.polled_at()
        turns = MISSED_TURNS * timedelta(seconds=settings.TUNING["SLUICE_PAYMENTS_POLL_S"])
        return polled_at is None or polled_at < now - max(SILENT_AFTER, turns)

    def are_webhooks_silent(self, now: datetime) -> bool:
        """Stripe had something to say, and none of it came by itself."""
        last = self.last_webhook_at
        return self.missed > 0 and (last is None or last < now - _WEBHOOK_PERIOD)

    def is_inbox_stuck(self, now: datetime) -> bool:
        return self.waiting_since is not None and self.waiting_since < now - SILENT_AFTER


def payments_overview(*, now: datetime) -> Overview:
    """Everything that the overview shows."""
    pending = StripeOperation.objects.filter(state=OperationState.PENDING)
    disputes = Dispute.objects.filter(closed_at=None)
    waiting = StripeEvent.objects.filter(state=EventState.RECEIVED)
    missed = StripeEvent.objects.filter(source=EventSource.POLLER, created_at__gte=now - _WEBHOOK_PERIOD)
    return Overview(
        currencies=_figures(now),
        evidence_due_at=disputes.aggregate(due=Min("evidence_due_at", filter=Q(evidence_due_at__gt=now)))[
            "due"
        ],
        events_failed=count_events(state=EventState.FAILED),
        waiting_since=waiting.aggregate(since=Min("received_at"))["since"],
        operations_pending=pending.count(),
        pending_since=pending.aggregate(since=Min("created_at"))["since"],
        cursors=tuple(list_cursors()),
        last_webhook_at=last_event(source=EventSource.WEBHOOK),
        missed=missed.count(),
    )


def _figures(now: datetime) -> tuple[CurrencyFigures, ...]:
    today = datetime.combine(now.astimezone(UTC).date(), time(), tzinfo=UTC)
    since = today - timedelta(days=DAYS - 1)
    paid = TopUp.objects.filter(
        id__gte=partition_bound(since - _LONGEST), state=TopUpState.PAID, ended_at__gte=since
    )
    refunds = Refund.objects.filter(id__gte=partition_bound(since - _LONGEST), ordered_at__gte=since).exclude(
        state=RefundState.FAILED
    )
    sums = {
        "top_ups": _sums(paid),
        "top_ups_today": _sums(paid.filter(ended_at__gte=today)),
        "refunds": _sums(refunds),
        "refunds_today": _sums(refunds.filter(ordered_at__gte=today)),
        "disputes": _sums(Dispute.objects.filter(closed_at=None)),
        "owed": _sums(Wallet.objects.filter(receivable_nanos__lt=0), -F("receivable_nanos")),
    }
    currencies = sorted({currency for one in sums.values() for currency in one})
    return tuple(
        CurrencyFigures(currency, **{name: one.get(currency, Amount()) for name, one in sums.items()})
        for currency in currencies
    )


def _sums(rows: Any, amount: Any = "amount_nanos") -> dict[str, Amount]:
    found = (
        rows.order_by().values("currency").annotate(count=Count("pk"), nanos=Coalesce(Sum(amount), 0))
    ).values_list("currency", "count", "nanos")
    return {currency: Amount(count, int(nanos)) for currency, count, nanos in found}
