"""One organization's limits and tier, as operators see and set them. `limits_of` and the fragment
backoffice/tiers/_limits_of.html can stand on other pages of operators too."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog import queries as catalog_queries
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tiers.forms import (
    OperatorLimitForm,
    OperatorValueForm,
    OverrideForm,
    ReasonForm,
    first_moment,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import parse_id
from portal.pages.answers import done, show
from portal.pages.limits import KIND_NAMES, ShownLine, line_groups, plain_value
from quotas.limits import operations, tiers
from quotas.limits.queries import EffectiveLimits, effective_limits
from quotas.limits.standing import tier_overrides
from quotas.limits.values import SetValue
from quotas.models import LimitKind, LimitOrigin
from tenants import queries
from tenants.operations import audit
from tenants.queries import TenantName

MAX_MODELS = 200


def limits_of(*, tenant_id: UUID, now: datetime) -> dict[str, Any]:
    """The context of backoffice/tiers/_limits_of.html."""
    found = _limits(tenant_id, now)
    lines = [ShownLine(line, found.currency) for line in found.lines]
    return {
        "limits": found,
        "limits_organization": public_id(PREFIXES["organization"], tenant_id),
        "groups": line_groups(found),
        "exhausted": [row for row in lines if row.line.is_exhausted],
        "set_values": [
            (row, value, is_operators)
            for row in lines
            for value, is_operators in ((row.line.of_operator, True), (row.line.of_tenant, False))
            if value is not None
        ],
        "overrides": tier_overrides(tenant_id=tenant_id, now=now),
    }


@operator_page()
def tenant_limits(request: HttpRequest, organization: str) -> HttpResponse:
    """Everything that applies to one organization."""
    tenant = _tenant(organization)
    context = {"section": "tenants", "tenant": tenant, **limits_of(tenant_id=tenant.id, now=utc_now())}
    return show(request, "backoffice/tiers/limits.html", context)


@operator_page(methods=("GET", "HEAD", "POST"))
def new_limit(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the form; POST it. The same scope and kind again replaces what operators set."""
    tenant, now = _tenant(organization), utc_now()
    found = _limits(tenant.id, now)
    form = OperatorLimitForm(
        request.POST if request.method == "POST" else None,
        currency=found.currency,
        models=_models(found.currency, now),
        keys=_keys(tenant.id, now),
        auto_id="limit_%s",
    )
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        kind: LimitKind = values["limit_kind"]
        if _set(request, tenant, form, kind, values["model_id"], values["api_key_id"], now):
            return _done(request, tenant, _("The limit “%(name)s” is set.") % {"name": KIND_NAMES[kind]})
    return _dialog(request, tenant, "_new_limit", {"form": form}, _("Set a limit"), form)


@operator_page(methods=("GET", "HEAD", "POST"))
def change_limit(request: HttpRequest, organization: str, limit: str) -> HttpResponse:
    """Another value of an operators' limit; scope and kind stay."""
    tenant, now = _tenant(organization), utc_now()
    row, value = _set_value(tenant.id, limit, now)
    if value is not row.line.of_operator:
        raise Http404
    form = OperatorValueForm(
        request.POST if request.method == "POST" else None,
        kind=row.line.kind,
        currency=row.currency,
        initial={
            "value": plain_value(row.line.kind, value.value),
            "is_hard": value.is_hard,
            "alerts": ", ".join(str(one) for one in value.alert_percents),
        },
        auto_id="change_%s",
    )
    if request.method == "POST" and form.is_valid():
        scope = row.line.scope
        if _set(request, tenant, form, row.line.kind, scope.model_id, scope.api_key_id, now):
            return _done(request, tenant, _("The limit “%(name)s” is set.") % {"name": row.name})
    context = {"form": form, "row": row, "value": value}
    return _dialog(request, tenant, "_change_limit", context, _("Change the limit"), form)


@operator_page(methods=("GET", "HEAD", "POST"))
def clear_limit(request: HttpRequest, organization: str, limit: str) -> HttpResponse:
    """GET the question; POST ends the limit, the organization's own too, with a reason."""
    tenant, now = _tenant(organization), utc_now()
    row, value = _set_value(tenant.id, limit, now)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="clear_%s")
    if request.method == "POST" and form.is_valid():
        assert value.limit_id is not None, "it was found by its id"
        # Whoever removed it a moment ago was quicker, and it is gone as this one wants it.
        with suppress(operations.LimitNotFound):
            operations.clear_limit(
                tenant_id=tenant.id,
                limit_id=value.limit_id,
                actor=operator_actor(request),
                now=now,
                reason=form.cleaned_data["reason"],
            )
        return _done(request, tenant, _("The limit “%(name)s” is removed.") % {"name": row.name})
    context = {"form": form, "row": row, "value": value}
    return _dialog(request, tenant, "_clear_limit", context, _("Remove the limit?"), form)


@operator_page(methods=("GET", "HEAD", "POST"))
def assign_tier(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the form; POST a tier that beats what payments lead to, until a day or openly."""
    tenant, now = _tenant(organization), utc_now()
    form = OverrideForm(
        request.POST if request.method == "POST" else None, tiers=tiers.list_tiers(), auto_id="tier_%s"
    )
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            tiers.assign_tier(
                tenant_id=tenant.id,
                tier_id=parse_id("tier", values["tier"]),
                starts_at=first_moment(values),
                ends_at=values["ends_at"],
                actor=operator_actor(request),
                now=now,
                reason=values["reason"],
            )
        except tiers.InvalidTier:
            form.add_error("ends_on", _("The last day is not before the first, and not over yet."))
        except tiers.TierNotFound:
            form.add_error("tier", _("There is no such tier any more."))
        else:
            return _done(request, tenant, _("The tier is assigned."))
    return _dialog(request, tenant, "_assign_tier", {"form": form}, _("Assign a tier"), form)


@operator_page(methods=("GET", "HEAD", "POST"))
def end_override(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST ends what operators assigned: payments decide again."""
    tenant = _tenant(organization)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="end_%s")
    if request.method == "POST" and form.is_valid():
        try:
            tiers.end_tier_override(
                tenant_id=tenant.id,
                actor=operator_actor(request),
                now=utc_now(),
                reason=form.cleaned_data["reason"],
            )
        except tiers.OverrideNotFound:
            form.add_error(None, _("No tier is assigned by an operator."))
        else:
            return _done(request, tenant, _("The assigned tier has ended."))
    return _dialog(request, tenant, "_end_override", {"form": form}, _("End the assigned tier?"), form)


def _set(
    request: HttpRequest,
    tenant: TenantName,
    form: forms.Form,
    kind: LimitKind,
    model_id: UUID | None,
    api_key_id: UUID | None,
    now: datetime,
) -> bool:
    """Whether it could be set; otherwise the form says why not."""
    values = form.cleaned_data
    try:
        operations.set_limit(
            tenant_id=tenant.id,
            kind=kind,
            value=values["limit_value"],
            origin=LimitOrigin.OPERATOR,
            actor=operator_actor(request),
            now=now,
            model_id=model_id,
            api_key_id=api_key_id,
            is_hard=values["is_hard"],
            alert_percents=values["alert_percents"],
            ends_at=values["ends_at"],
            reason=values["reason"],
        )
    except operations.InvalidLimit:
        form.add_error("ends_on", _("The last day is not over yet."))
    except operations.TooManyLimits:
        form.add_error(None, _("There are too many limits. Remove one that is no longer needed."))
    except (operations.UnknownModel, operations.UnknownKey):
        form.add_error(None, _("The model is no longer on offer, or the key is no longer in use."))
    except audit.ReasonMissing:
        form.add_error("reason", _("Give a reason of 3 to 500 characters."))
    else:
        return True
    return False


def _limits(tenant_id: UUID, now: datetime) -> EffectiveLimits:
    return effective_limits(
        tenant_id=tenant_id, now=now, default_rpm=settings.TUNING["SLUICE_RATE_LIMIT_RPM"]
    )


def _tenant(text: str) -> TenantName:
    """Raises Http404 for no organization."""
    tenant_id = parse_id("organization", text)
    for tenant in queries.find_tenants(text=text):
        if tenant.id == tenant_id:
            return tenant
    raise Http404


def _set_value(tenant_id: UUID, text: str, now: datetime) -> tuple[ShownLine, SetValue]:
    """The line and the value of a limit that somebody set. Raises Http404 for any other id."""
    limit_id = parse_id("limit", text)
    found = _limits(tenant_id, now)
    for line in found.lines:
        for value in (line.of_operator, line.of_tenant):
            if value is not None and value.limit_id == limit_id:
                return ShownLine(line, found.currency), value
    raise Http404


def _models(currency: str, now: datetime) -> list[tuple[UUID, str]]:
    listed = catalog_queries.list_models(currency=currency, now=now, sort="name", limit=MAX_MODELS)
    return [(model.id, model.slug) for model in listed.rows]


def _keys(tenant_id: UUID, now: datetime) -> list[tuple[str, str]]:
    rows = queries.list_api_keys(tenant_id=tenant_id, now=now)
    return [(row.public_id, f"{row.name} ({row.masked})") for row in rows if row.is_live]


def _dialog(
    request: HttpRequest,
    tenant: TenantName,
    fragment: str,
    context: dict[str, Any],
    title: str,
    form: forms.Form,
) -> HttpResponse:
    return show_dialog(
        request,
        f"backoffice/tiers/{fragment}.html",
        {**context, "tenant": tenant, "limits_organization": tenant.public_id},
        title=title,
        section="tenants",
        status=422 if form.errors else 200,
    )


def _done(request: HttpRequest, tenant: TenantName, text: str) -> HttpResponse:
    return done(request, reverse("backoffice:tenant-limits", args=[tenant.public_id]), text)
