"""Stripe's inbox: what Stripe said, one event with what it held, and processing it once more."""

from __future__ import annotations

import json
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.payments.filters import choice, cursor_of, cursor_text, plain
from portal.backoffice.payments.shown import shown_events
from portal.backoffice.payments.words import EVENT_SOURCES, EVENT_STATES, choices
from portal.backoffice.tenants.forms import ReasonForm
from portal.kit.clock import utc_now
from portal.pages.answers import done, is_fragment, show
from quotas.models import EventSource, EventState
from quotas.payments.inbox import replay_event
from quotas.payments.inbox_queries import (
    EventFilter,
    EventRow,
    count_events,
    event_payload,
    event_types,
    find_event,
    list_events,
)
from quotas.payments.interventions import MAX_REPLAYED, NothingToReplay, replay_failed

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")
# Whoever has one of these can pay with it, or take the payment over.
SECRET_NAMES: Final = frozenset({"client_secret", "secret"})
HIDDEN: Final = "\N{HORIZONTAL ELLIPSIS}"


@operator_page()
def events(request: HttpRequest) -> HttpResponse:
    """The list. In the address: state, type, source, q (the id of an event or an object), before."""
    query = request.GET
    filters = EventFilter(
        state=choice(EventState, query.get("state", "")),
        type=plain(query.get("type", "")),
        source=choice(EventSource, query.get("source", "")),
        text=plain(query.get("q", "")),
    )
    page = list_events(filters=filters, before=cursor_of(query.get("before", "")), limit=PAGE_ROWS)
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "events",
        "rows": shown_events(page.rows),
        "next": cursor_text(page.next),
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("state", "type", "source", "q")},
        "is_filtered": filters != EventFilter(),
        "states": choices(EVENT_STATES),
        "sources": choices(EVENT_SOURCES),
        "types": event_types(),
        "failed": count_events(state=EventState.FAILED),
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "event-rows":
        return show(request, "backoffice/payments/_event_rows.html", context)
    return show(request, "backoffice/payments/events.html", context)


@operator_page()
def event(request: HttpRequest, event: str) -> HttpResponse:
    """One event: what it held, how often it was tried, and what went wrong."""
    found = _found(event)
    (shown,) = shown_events([found])
    payload = _without_secrets(event_payload(event_id=found.id))
    context = {
        "section": "payments",
        "tab": "events",
        "found": found,
        "shown": shown,
        "payload": json.dumps(payload, indent=2, ensure_ascii=False),
    }
    return show(request, "backoffice/payments/event.html", context)


@operator_page(methods=FORM_METHODS)
def replay(request: HttpRequest, event: str) -> HttpResponse:
    """GET the question; POST reason. The object is read at Stripe again, and what it says is applied."""
    found = _found(event)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="replay_%s")
    address = reverse("backoffice:stripe-event", args=[found.id])
    if request.method == "POST" and form.is_valid():
        replay_event(
            event_id=found.id,
            reason=form.cleaned_data["reason"],
            actor=operator_actor(request),
            now=utc_now(),
        )
        return done(request, address, _("The event %(id)s is processed again.") % {"id": found.id})
    context = {"form": form, "found": found, "back_url": address, "post_url": request.path}
    return _dialog(request, "replay", context, _("Process %(type)s again?") % {"type": found.type})


@operator_page(methods=FORM_METHODS)
def replay_all(request: HttpRequest) -> HttpResponse:
    """GET the question; POST reason. At most MAX_REPLAYED events, the oldest first."""
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="replay_%s")
    address = reverse("backoffice:stripe-events")
    if request.method == "POST" and form.is_valid():
        try:
            count = replay_failed(
                reason=form.cleaned_data["reason"], actor=operator_actor(request), now=utc_now()
            )
        except NothingToReplay:
            form.add_error(None, _("No event has failed."))
        else:
            text = ngettext(
                "%(count)d event is processed again.", "%(count)d events are processed again.", count
            )
            return done(request, address, text % {"count": count})
    failed = count_events(state=EventState.FAILED)
    context = {
        "form": form,
        "failed": failed,
        "most": MAX_REPLAYED,
        "back_url": address,
        "post_url": request.path,
    }
    return _dialog(request, "replay_all", context, _("Process all failed events again?"))


def _found(event: str) -> EventRow:
    found = find_event(event_id=event) if plain(event) == event else None
    if found is None:
        raise Http404
    return found


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: HIDDEN if name in SECRET_NAMES and inner else _without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    return value


def _dialog(request: HttpRequest, name: str, context: dict[str, Any], title: str) -> HttpResponse:
    return show_dialog(
        request,
        f"backoffice/payments/_{name}.html",
        context,
        title=title,
        section="payments",
        status=422 if context["form"].errors else 200,
    )
