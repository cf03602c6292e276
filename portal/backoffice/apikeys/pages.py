"""Operators' keys: at most 90 days, in one operator's name, and every operator can end each of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import reswap, retarget

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import Unlogged, done, is_fragment, never_keep, show
from portal.pages.management_keys import NewManagementKeyForm, secret_store
from tenants import operations
from tenants.management_queries import find_management_key, list_operator_keys
from tenants.models import OPERATOR_SCOPES
from tenants.operations import audit
from tenants.operations.management import MAX_MANAGEMENT_KEYS

LIFETIMES_DAYS: Final = (7, 30, 90)
FORM_METHODS: Final = ("GET", "HEAD", "POST")
SECTION: Final = "operator-keys"


class ReasonForm(forms.Form):
    """Why; the audit log keeps it."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=3,
        max_length=500,
        help_text=gettext_lazy("The audit log keeps it."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class NewKeyForm(NewManagementKeyForm, ReasonForm):
    """What every management key has, and why it is made."""

    field_order = ("name", "expires", "scopes", "reason")


@operator_page()
def operator_keys(request: HttpRequest) -> HttpResponse:
    """All operators' keys. In the address: state (live, all)."""
    now = utc_now()
    state = "all" if request.GET.get("state") == "all" else "live"
    rows = list_operator_keys(now=now)
    context = {
        "section": SECTION,
        "rows": [row for row in rows if state == "all" or row.is_live],
        "has_any": bool(rows),
        "ended_count": sum(not row.is_live for row in rows),
        "state": state,
        "management_base": f"{settings.PORTAL_URL}/api/v1/operator",
    }
    return show(request, "backoffice/keys/list.html", context)


@operator_page(methods=FORM_METHODS)
def new_operator_key(request: HttpRequest) -> HttpResponse:
    """GET the form; POST it. The answer to a right one holds the secret, and is the only one."""
    now = utc_now()
    form = _form(now, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            issued = operations.create_operator_key(
                name=values["name"],
                scopes=values["chosen_scopes"],
                expires_at=values["expires_at"],
                actor=operator_actor(request),
                reason=values["reason"],
                secrets=secret_store(),
                now=now,
            )
        except operations.TooManyManagementKeys:
            text = _("You have %(limit)d live keys, which is the most. Revoke one that is no longer used.")
            form.add_error(None, text % {"limit": MAX_MANAGEMENT_KEYS})
        except operations.InvalidManagementKey:
            form.add_error(None, _("The name cannot be stored as it is."))
        except audit.ReasonMissing:
            form.add_error("reason", _("Give a reason of 3 to 500 characters."))
        else:
            return _show_secret(request, issued)
    response = show_dialog(
        request,
        "backoffice/keys/_new.html",
        {"form": form},
        title=_("Create an operators' key"),
        section=SECTION,
        status=422 if form.errors else 200,
    )
    never_keep(response)
    return response


@operator_page(methods=FORM_METHODS)
def revoke_operator_key(request: HttpRequest, operator_key: str) -> HttpResponse:
    """GET the question; POST reason."""
    now = utc_now()
    row = find_management_key(tenant_id=None, key_id=parse_id("management_key", operator_key), now=now)
    if row is None or not row.is_live:
        raise Http404
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="revoke_%s")
    if request.method == "POST" and form.is_valid():
        operations.revoke_management_key(
            tenant_id=None,
            key_id=row.id,
            actor=operator_actor(request),
            now=now,
            reason=form.cleaned_data["reason"],
        )
        text = _("The operators' key “%(name)s” is revoked.") % {"name": row.name}
        return done(request, reverse("backoffice:operator-keys"), text)
    return show_dialog(
        request,
        "backoffice/keys/_revoke.html",
        {"form": form, "key": row},
        title=_("Revoke the operators' key “%(name)s”?") % {"name": row.name},
        section=SECTION,
        status=422 if form.errors else 200,
    )


def _show_secret(request: HttpRequest, issued: operations.IssuedManagementKey) -> HttpResponse:
    """The one answer that holds the secret: a dialog that takes the place of the others, or a page."""
    context = {
        "section": SECTION,
        "dialog_title": _("Your new operators' key"),
        "token": Unlogged(issued.token),
        "management_base": f"{settings.PORTAL_URL}/api/v1/operator",
        "close_url": reverse("backoffice:operator-keys"),
    }
    if not is_fragment(request):
        return show(request, "backoffice/keys/secret.html", context, private=True)
    response = show(request, "backoffice/keys/secret_dialog.html", context, private=True)
    return reswap(retarget(response, "#management-dialogs"), "innerHTML")


def _form(now: datetime, data: Any = None) -> NewKeyForm:
    return NewKeyForm(
        data,
        scopes=OPERATOR_SCOPES,
        lifetimes_days=LIFETIMES_DAYS,
        may_live_forever=False,
        now=now,
        auto_id="management_%s",
    )
