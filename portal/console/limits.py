"""Limits: what bounds this organization's calls, how much of it is used, and its own limits and budgets."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog import queries as catalog_queries
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import done, person_id, show, show_dialog
from portal.pages.limits import (
    KIND_NAMES,
    NewLimitForm,
    ShownLine,
    ValueForm,
    ceiling_text,
    line_groups,
    plain_value,
)
from quotas.limits import operations
from quotas.limits.queries import EffectiveLimits, effective_limits
from quotas.models import LimitKind, LimitOrigin
from tenants import queries
from tenants.operations import audit
from tenants.permissions import Permission


@organization_page(Permission.SEE_LIMITS)
def limits(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The whole page. Refusals of calls lead here, so what is used up stands first."""
    found = _limits(organization, utc_now())
    context: dict[str, Any] = {
        "section": "limits",
        "limits": found,
        "groups": line_groups(found),
        "own": [ShownLine(line, found.currency) for line in found.own],
        "exhausted": [ShownLine(line, found.currency) for line in found.exhausted],
        "next_percent": _next_percent(found),
    }
    return show(request, "console/limits/page.html", context)


@organization_page(Permission.MANAGE_LIMITS, methods=("GET", "HEAD", "POST"))
def new_limit(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the form; POST it. The same scope and kind again replaces what was set."""
    now = utc_now()
    form = NewLimitForm(
        request.POST if request.method == "POST" else None,
        currency=organization.currency,
        models=_models(organization, now),
        keys=_keys(organization, now),
        auto_id="limit_%s",
    )
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        answer = _set(
            request,
            organization,
            form,
            kind=values["limit_kind"],
            model_id=values["model_id"],
            api_key_id=values["api_key_id"],
            now=now,
        )
        if answer is not None:
            return answer
    return show_dialog(
        request,
        "console/limits/_new.html",
        {"form": form},
        title=_("Set a limit"),
        section="limits",
        status=422 if form.errors else 200,
    )


@organization_page(Permission.MANAGE_LIMITS, methods=("GET", "HEAD", "POST"))
def change_limit(request: HttpRequest, organization: Organization, limit: str) -> HttpResponse:
    """Another value, other alerts; scope and kind stay."""
    now = utc_now()
    row = _own(organization, limit, now)
    own = row.line.of_tenant
    assert own is not None, "the line was found by its own value"
    form = ValueForm(
        request.POST if request.method == "POST" else None,
        kind=row.line.kind,
        currency=organization.currency,
        initial={
            "value": plain_value(row.line.kind, own.value),
            "is_hard": own.is_hard,
            "alerts": ", ".join(str(one) for one in own.alert_percents),
        },
        auto_id="change_%s",
    )
    if request.method == "POST" and form.is_valid():
        scope = row.line.scope
        answer = _set(
            request,
            organization,
            form,
            kind=row.line.kind,
            model_id=scope.model_id,
            api_key_id=scope.api_key_id,
            now=now,
        )
        if answer is not None:
            return answer
    return show_dialog(
        request,
        "console/limits/_change.html",
        {"form": form, "row": row, "own": own},
        title=_("Change the limit"),
        section="limits",
        status=422 if form.errors else 200,
    )


@organization_page(Permission.MANAGE_LIMITS, methods=("GET", "HEAD", "POST"))
def remove_limit(request: HttpRequest, organization: Organization, limit: str) -> HttpResponse:
    """GET the question; POST ends it. What tier and operator allow goes on to apply."""
    now = utc_now()
    row = _own(organization, limit, now)
    own = row.line.of_tenant
    assert own is not None, "the line was found by its own value"
    assert own.limit_id is not None, "an own value is a limit"
    if request.method == "POST":
        # Whoever removed it a moment ago was quicker, and it is gone as this one wants it.
        with suppress(operations.LimitNotFound):
            operations.clear_limit(
                tenant_id=organization.tenant_id,
                limit_id=own.limit_id,
                actor=audit.member(person_id(request), organization.role),
                now=now,
            )
        text = _("The limit “%(name)s” is removed.") % {"name": row.name}
        return done(request, _limits_url(organization), text)
    return show_dialog(
        request,
        "console/limits/_remove.html",
        {"row": row, "own": own},
        title=_("Remove the limit?"),
        section="limits",
    )


def _set(
    request: HttpRequest, organization: Organization, form: ValueForm, *, kind: LimitKind, **scope: Any
) -> HttpResponse | None:
    """Set what the form says. None, and the form says why, when that cannot be."""
    values = form.cleaned_data
    try:
        operations.set_limit(
            tenant_id=organization.tenant_id,
            kind=kind,
            value=values["limit_value"],
            origin=LimitOrigin.TENANT,
            actor=audit.member(person_id(request), organization.role),
            is_hard=values["is_hard"],
            alert_percents=values["alert_percents"],
            default_rpm=settings.TUNING["SLUICE_RATE_LIMIT_RPM"],
            **scope,
        )
    except operations.AboveCeiling as error:
        form.add_error("value", ceiling_text(error, kind, organization.currency))
    except operations.TooManyLimits:
        form.add_error(None, _("There are too many limits. Remove one that is no longer needed."))
    except (operations.UnknownModel, operations.UnknownKey):
        form.add_error(None, _("The model is no longer enabled, or the key is no longer in use."))
    except operations.InvalidLimit:
        form.add_error("value", forms.ValidationError(_("Such a limit cannot be set.")))
    else:
        text = _("The limit “%(name)s” is set. It applies to the next call.") % {"name": KIND_NAMES[kind]}
        return done(request, _limits_url(organization), text)
    return None


def _limits(organization: Organization, now: datetime) -> EffectiveLimits:
    return effective_limits(
        tenant_id=organization.tenant_id, now=now, default_rpm=settings.TUNING["SLUICE_RATE_LIMIT_RPM"]
    )


def _own(organization: Organization, text: str, now: datetime) -> ShownLine:
    """Raises Http404 for what is no limit that the organization has set."""
    limit_id = parse_id("limit", text)
    found = _limits(organization, now)
    for line in found.own:
        if line.of_tenant is not None and line.of_tenant.limit_id == limit_id:
            return ShownLine(line, found.currency)
    raise Http404


def _models(organization: Organization, now: datetime) -> list[tuple[Any, str]]:
    rows = catalog_queries.enabled_models(
        tenant_id=organization.tenant_id, currency=organization.currency, now=now
    )
    return [(row.id, row.slug) for row in rows]


def _keys(organization: Organization, now: datetime) -> list[tuple[str, str]]:
    rows = queries.list_api_keys(tenant_id=organization.tenant_id, now=now)
    return [(row.public_id, f"{row.name} ({row.masked})") for row in rows if row.is_live]


def _next_percent(found: EffectiveLimits) -> int:
    """How far the organization has come to its next tier."""
    if found.next_tier is None:
        return 100
    return min(100, max(0, found.paid_nanos) * 100 // found.next_tier.lifetime_paid_nanos)


def _limits_url(organization: Organization) -> str:
    return reverse("console:limits", args=[organization.public_id])
