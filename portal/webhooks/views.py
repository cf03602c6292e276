"""Stripe's events: the signature over the raw body proves who sent them, so nothing else is asked for."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from portal.kit.clock import utc_now
from quotas.payments import inbox
from quotas.payments.client import PaymentsNotConfigured
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"


@csrf_exempt
@require_POST
def stripe_events(request: HttpRequest) -> HttpResponse:
    """200 for an event that is stored, now or before; 400 for anything else, which changes nothing."""
    try:
        body = _body(request)
        signature = request.headers.get("Stripe-Signature", "")
        with role_scope("operator"):
            inbox.receive_event(body=body, signature=signature, now=utc_now())
    except (inbox.EventRefused, PaymentsNotConfigured) as refused:
        logger.warning("portal.webhooks.refused", extra={"reason": str(refused)})
        return HttpResponse("refused", status=400, content_type=PLAIN)
    return HttpResponse("received", content_type=PLAIN)


stripe_events.methods = ("POST",)  # type: ignore[attr-defined]


def _body(request: HttpRequest) -> bytes:
    """Errors: inbox.EventRefused."""
    try:
        announced = int(request.headers.get("Content-Length") or 0)
        if announced > inbox.MAX_EVENT_BYTES:
            raise inbox.EventRefused("too large")
        # What does not say how long it is, is read no further than an event may be; receive_event refuses it.
        return request.read(inbox.MAX_EVENT_BYTES + 1)
    except (UnreadablePostError, ValueError):
        raise inbox.EventRefused("unreadable") from None
