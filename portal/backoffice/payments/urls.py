"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.payments import (
    days,
    inbox,
    money_back,
    operations,
    overview,
    receivables,
    refunding,
    top_ups,
)

_HERE = "operator/payments"

urlpatterns: list[URLPattern] = [
    path(f"{_HERE}/", overview.payments, name="payments"),
    path(f"{_HERE}/top-ups/", top_ups.top_ups, name="top-ups"),
    path(f"{_HERE}/top-ups/<str:top_up>/", top_ups.top_up, name="top-up"),
    path(f"{_HERE}/top-ups/<str:top_up>/refund", refunding.refund, name="top-up-refund"),
    path(f"{_HERE}/refunds/", money_back.refunds, name="refunds"),
    path(f"{_HERE}/disputes/", money_back.disputes, name="disputes"),
    path(f"{_HERE}/disputes/<str:dispute>/", money_back.dispute, name="dispute"),
    path(f"{_HERE}/receivables/", receivables.receivables, name="receivables"),
    path(f"{_HERE}/events/", inbox.events, name="stripe-events"),
    path(f"{_HERE}/events/replay-failed", inbox.replay_all, name="stripe-events-replay"),
    path(f"{_HERE}/events/<str:event>/", inbox.event, name="stripe-event"),
    path(f"{_HERE}/events/<str:event>/replay", inbox.replay, name="stripe-event-replay"),
    path(f"{_HERE}/requests/", operations.operations, name="stripe-operations"),
    path(f"{_HERE}/requests/<str:operation>/send", operations.send, name="stripe-operation-send"),
    path(f"{_HERE}/days/", days.days, name="stripe-days"),
]
