"""The overview: what flows, how things stand, what is still to do, and the last calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django_htmx.http import trigger_client_event

from models_catalog.models import ModelGrant
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page
from portal.pages.call_rows import call_rows
from portal.pages.charts import Chart, Series, Slot, filled_area
from portal.pages.tags import amount_text, count_text
from quotas.ledger.queries import wallet_balance
from quotas.metering.queries import (
    RequestFilter,
    UsageSummary,
    call_health,
    has_any_request,
    list_requests,
    usage_summary,
)
from quotas.metering.queries.activity import DAY
from quotas.welcome.queries import welcome_of
from tenants.permissions import Permission
from tenants.queries import list_api_keys

RECENT_CALLS = 8
RECENT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do before the first call works. action: where it is done, for whoever may do it.

    is_next: the first that is still to do.
    """

    name: str
    title: str
    text: str
    is_done: bool
    action_url: str = ""
    action_label: str = ""
    is_next: bool = False


@organization_page(Permission.SEE_OVERVIEW)
def overview(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The whole page."""
    steps = _steps(organization)
    context = {
        "section": "overview",
        "steps": steps,
        "is_set_up": all(step.is_done for step in steps),
        "welcome": welcome_of(tenant_id=organization.tenant_id),
        **_live(request, organization),
    }
    return render(request, "console/overview/page.html", context)


@organization_page(Permission.SEE_OVERVIEW)
def live(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The part with numbers, which the page asks for again and again."""
    return render(request, "console/overview/_live.html", _live(request, organization))


@organization_page(Permission.SEE_OVERVIEW)
def checklist(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The steps as they stand; when the last one is done, the numbers are asked for at once."""
    steps = _steps(organization)
    is_set_up = all(step.is_done for step in steps)
    response = render(request, "console/overview/_checklist.html", {"steps": steps, "is_set_up": is_set_up})
    return trigger_client_event(response, "set-up-done") if is_set_up else response


def _steps(organization: Organization) -> list[Step]:
    tenant_id, public_id = organization.tenant_id, organization.public_id
    models_url = reverse("console:models", args=[public_id])
    keys_url = reverse("console:keys", args=[public_id])
    first_call_at = has_any_request(tenant_id=tenant_id)
    # What has led to a call was there, even if it is gone by now.
    has_model = first_call_at is not None or _has_model(tenant_id)
    has_key = first_call_at is not None or bool(list_api_keys(tenant_id=tenant_id, now=utc_now()))
    steps = [
        Step("verify", _("Verify your e-mail address"), _("Done when you signed in."), True),
        Step(
            "model",
            _("Enable a model"),
            _("Choose what your programs may call. It costs nothing until it is called."),
            has_model,
            models_url if organization.may(Permission.ENABLE_MODELS) else "",
            _("Choose a model"),
        ),
        Step(
            "key",
            _("Create an API key"),
            _("Its secret is shown once, with a ready-made .env file and a call to try."),
            has_key,
            keys_url if organization.may(Permission.MANAGE_KEYS) else "",
            _("Create a key"),
        ),
        Step(
            "request",
            _("Send the first request"),
            _("Run the call shown with the key, or use the playground. This turns green by itself."),
            first_call_at is not None,
        ),
    ]
    following = next((step for step in steps if not step.is_done), None)
    return [replace(step, is_next=step is following) for step in steps]


def _has_model(tenant_id: UUID) -> bool:
    return ModelGrant.objects.filter(tenant_id=tenant_id, ended_at=None).exists()


def _live(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    now = utc_now()
    tenant_id = organization.tenant_id
    summary = usage_summary(tenant_id=tenant_id, now=now)
    wallet = wallet_balance(tenant_id=tenant_id)
    recent = list_requests(
        tenant_id=tenant_id,
        filters=RequestFilter(now - RECENT_DAYS * DAY, now + DAY),
        limit=RECENT_CALLS,
    )
    show = request.GET.get("show", "tokens")
    show = show if show in ("tokens", "money") else "tokens"
    return {
        "summary": summary,
        "wallet": wallet,
        "days_left": summary.days_left(available_nanos=wallet.available_nanos),
        "health": call_health(tenant_id=tenant_id, now=now),
        "show": show,
        "chart": _flow(summary, show, organization.currency),
        "calls": call_rows(recent.rows) if organization.may(Permission.SEE_USAGE) else (),
    }


def _flow(summary: UsageSummary, show: str, currency: str) -> Chart:
    slots = [Slot(f"{hour.start:%H:%M}", f"{hour.start:%Y-%m-%d %H:%M} UTC") for hour in summary.hours]
    if show == "money":
        spent = Series(_("Charged"), tuple(hour.sums.charged_nanos for hour in summary.hours))
        return filled_area(
            chart_id="flow",
            title=_("Money per hour (UTC)"),
            slots=slots,
            series=[spent],
            wording=lambda nanos: amount_text(nanos, currency),
            slot_heading=_("Hour (UTC)"),
        )
    sums = [hour.sums for hour in summary.hours]
    return filled_area(
        chart_id="flow",
        title=_("Tokens per hour (UTC)"),
        slots=slots,
        series=[
            Series(_("Input"), tuple(one.prompt_tokens for one in sums)),
            Series(_("Output"), tuple(one.completion_tokens for one in sums)),
        ],
        wording=count_text,
        slot_heading=_("Hour (UTC)"),
    )
