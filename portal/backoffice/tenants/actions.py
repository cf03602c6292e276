"""What operators do to an organization: suspend, resume, note, credit, end a key. Each with a reason."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.orders import credit_policy, line_in_use_text, takes_too_much_text
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import CUT, CreditForm, NoteForm, ReasonForm, SuspendForm, ToldReasonForm
from portal.backoffice.tenants.pages import found_tenant
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import done, person_id
from quotas.credit import operations as credit_operations
from quotas.credit.queries import CreditOrderRow, given_alone
from quotas.models import CreditOrderKind
from tenants import operations
from tenants.models import TenantState
from tenants.queries import find_api_key
from tenants.search import TenantRow

FORM_METHODS = ("GET", "HEAD", "POST")


@operator_page(methods=FORM_METHODS)
def suspend(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST calls, reason and the organization's name."""
    tenant = found_tenant(organization)
    form = SuspendForm(_posted(request), name=tenant.name, auto_id="suspend_%s")
    if request.method == "POST" and form.is_valid():
        try:
            operations.suspend_tenant(
                tenant_id=tenant.id,
                reason=form.cleaned_data["reason"],
                cuts_calls=form.cleaned_data["calls"] == CUT,
                actor=operator_actor(request),
                now=utc_now(),
            )
        except operations.AlreadySuspended:
            form.add_error(None, _("It is suspended in this way already."))
        except operations.OrganizationClosed:
            form.add_error(None, _("It is closed."))
        else:
            return done(request, _address(tenant), _("%(name)s is suspended.") % {"name": tenant.name})
    title = _("Suspend %(name)s?") % {"name": tenant.name}
    return _dialog(request, "suspend", tenant, form, title)


@operator_page(methods=FORM_METHODS)
def resume(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST reason."""
    tenant = found_tenant(organization)
    form = ReasonForm(_posted(request), auto_id="resume_%s")
    if request.method == "POST" and form.is_valid():
        try:
            operations.resume_tenant(
                tenant_id=tenant.id,
                reason=form.cleaned_data["reason"],
                actor=operator_actor(request),
                now=utc_now(),
            )
        except (operations.NotSuspended, operations.OrganizationClosed):
            form.add_error(None, _("It is not suspended."))
        else:
            return done(request, _address(tenant), _("%(name)s is active again.") % {"name": tenant.name})
    return _dialog(request, "resume", tenant, form, _("Resume %(name)s?") % {"name": tenant.name})


@operator_page(methods=FORM_METHODS)
def note(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the form; POST text."""
    tenant = found_tenant(organization)
    form = NoteForm(_posted(request), auto_id="note_%s")
    if request.method == "POST" and form.is_valid():
        try:
            operations.add_note(
                tenant_id=tenant.id, text=form.cleaned_data["text"], actor=operator_actor(request)
            )
        except operations.InvalidNote:
            form.add_error("text", _("This cannot be stored as it is."))
        else:
            return done(request, _address(tenant), _("The note is written down."))
    return _dialog(request, "note", tenant, form, _("A note about %(name)s") % {"name": tenant.name})


@operator_page(methods=FORM_METHODS)
def revoke_key(request: HttpRequest, organization: str, key: str) -> HttpResponse:
    """GET the question; POST reason."""
    tenant, now = found_tenant(organization), utc_now()
    row = find_api_key(tenant_id=tenant.id, key_id=parse_id("api_key", key), now=now)
    if row is None or not row.is_live:
        raise Http404
    form = ToldReasonForm(_posted(request), auto_id="revoke_%s")
    if request.method == "POST" and form.is_valid():
        try:
            operations.revoke_key_for(
                tenant_id=tenant.id,
                key_id=row.id,
                reason=form.cleaned_data["reason"],
                actor=operator_actor(request),
                now=now,
            )
        except operations.KeyNotFound:
            form.add_error(None, _("The key is revoked already."))
        else:
            return done(request, _address(tenant), _("The key “%(name)s” is revoked.") % {"name": row.name})
    title = _("Revoke the key “%(name)s”?") % {"name": row.name}
    return _dialog(request, "revoke_key", tenant, form, title, key=row)


@operator_page(methods=FORM_METHODS)
def credit(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the form; POST kind, amount and reason. Above the limit the order waits for a second operator."""
    tenant, now = found_tenant(organization), utc_now()
    form = CreditForm(_posted(request), currency=tenant.currency, auto_id="credit_%s")
    if request.method == "POST" and form.is_valid():
        order = _order(request, tenant, form)
        if order is not None:
            return done(request, _address(tenant), _ordered_text(order))
    policy = credit_policy()
    alone = given_alone(operator_id=person_id(request), tenant_id=tenant.id, now=now)
    title = _("Credit of %(name)s") % {"name": tenant.name}
    return _dialog(
        request,
        "credit",
        tenant,
        form,
        title,
        left_nanos=alone.left_nanos(policy),
        line_limit_nanos=policy.line_limit_nanos,
    )


def _order(request: HttpRequest, tenant: TenantRow, form: CreditForm) -> CreditOrderRow | None:
    """What was ordered; None when the form says why not."""
    values = form.cleaned_data
    try:
        return credit_operations.order_credit(
            tenant_id=tenant.id,
            kind=CreditOrderKind(values["kind"]),
            amount_nanos=values["amount"],
            reason=values["reason"],
            actor=operator_actor(request),
            policy=credit_policy(),
            now=utc_now(),
            expires_at=_start_of(values["expires_on"]),
        )
    except credit_operations.TakesTooMuch as error:
        form.add_error("amount", takes_too_much_text(error.most_nanos, tenant.currency))
    except credit_operations.CreditLineInUse as error:
        form.add_error("amount", line_in_use_text(error.used_nanos, tenant.currency))
    except (credit_operations.InvalidOrder, credit_operations.NoWallet):
        form.add_error("amount", _("This cannot be ordered."))
    return None


def _start_of(day: date | None) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None


def _ordered_text(order: CreditOrderRow) -> str:
    if order.is_waiting:
        return _("The order %(id)s waits for a second operator.") % {"id": order.public_id}
    return _("The order %(id)s is carried out.") % {"id": order.public_id}


def _dialog(
    request: HttpRequest, name: str, tenant: TenantRow, form: Form, title: str, **more: Any
) -> HttpResponse:
    context = {
        "tenant": tenant,
        "form": form,
        "is_suspended": tenant.state == TenantState.SUSPENDED,
        "back_url": _address(tenant),
        "post_url": request.path,
        **more,
    }
    return show_dialog(
        request,
        f"backoffice/tenants/_{name}.html",
        context,
        title=title,
        section="tenants",
        status=422 if form.errors else 200,
    )


def _posted(request: HttpRequest) -> Any:
    return request.POST if request.method == "POST" else None


def _address(tenant: TenantRow) -> str:
    return reverse("backoffice:tenant", args=[tenant.public_id])
