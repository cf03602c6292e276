"""Where operators begin: what waits for a decision and what was done last; and the end of their session."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.audit.rows import shown_events
from portal.backoffice.elevation import end_elevation
from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.pages.answers import show
from quotas.credit.queries import count_waiting_orders
from quotas.welcome.queries import count_held_welcomes
from tenants.audit_queries import AuditFilter, audit_page
from tenants.search import count_suspended

RECENT_EVENTS = 15


@operator_page()
def home(request: HttpRequest) -> HttpResponse:
    """What waits, and the newest events."""
    context = {
        "section": "home",
        "orders": count_waiting_orders(),
        "welcomes": count_held_welcomes(),
        "suspended": count_suspended(),
        "events": shown_events(audit_page(filters=AuditFilter(), limit=RECENT_EVENTS).rows),
    }
    return show(request, "backoffice/home.html", context)


@operator_page(methods=("POST",))
def end(request: HttpRequest) -> HttpResponse:
    """The operator is done: the area closes until the second factor is used again."""
    end_elevation(request.session, now=utc_now())
    messages.info(
        request, _("The elevated session has ended. The operators' pages ask for your second factor again.")
    )
    return HttpResponseRedirect(reverse("console:chooser"))


@operator_page()
def elevated(request: HttpRequest) -> HttpResponse:
    """Where a second factor leads to that was proven in a tab of its own, beside an open form."""
    return show(request, "backoffice/elevated.html", {"section": "home"})
