"""Management keys: what programs manage this organization with. A secret is in one answer, once."""

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

from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import Unlogged, done, is_fragment, person_id, show, show_dialog
from portal.pages.management_keys import NewManagementKeyForm, secret_store
from portal.pages.roles import ROLE_NAMES
from tenants import operations
from tenants.management_queries import ManagementKeyRow, find_management_key, list_management_keys
from tenants.models import TENANT_SCOPES, Role
from tenants.operations import audit
from tenants.operations.management import MAX_MANAGEMENT_KEYS
from tenants.permissions import Permission, includes

LIFETIMES_DAYS: Final = (30, 90, 365)
LIVE: Final = "live"
ALL: Final = "all"


class NewKeyForm(NewManagementKeyForm):
    """The role as well: one that the person's own includes."""

    role = forms.ChoiceField(
        label=gettext_lazy("Role"),
        initial=Role.VIEWER.value,
        help_text=gettext_lazy("The key may do what both its role and its scopes allow, while you may."),
    )
    field_order = ("name", "role", "expires", "scopes")

    def __init__(self, *args: Any, own_role: Role, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["role"].choices = [  # type: ignore[attr-defined]
            (role.value, ROLE_NAMES[role]) for role in Role if includes(own_role, role)
        ]


@organization_page(Permission.MANAGE_MANAGEMENT_KEYS)
def management_keys(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The list. In the address: state (live, all)."""
    now = utc_now()
    state = ALL if request.GET.get("state") == ALL else LIVE
    rows = list_management_keys(tenant_id=organization.tenant_id, now=now)
    context = {
        "section": "keys",
        "rows": [row for row in rows if state == ALL or row.is_live],
        "has_any": bool(rows),
        "ended_count": sum(not row.is_live for row in rows),
        "state": state,
        "form": _form(organization, now),
        "management_base": f"{settings.PORTAL_URL}/api/v1",
    }
    return show(request, "console/management/list.html", context, private=True)


@organization_page(Permission.MANAGE_MANAGEMENT_KEYS, methods=("GET", "HEAD", "POST"))
def new_management_key(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the form as a page; POST it. The answer to a right one holds the secret, and is the only one."""
    now = utc_now()
    form = _form(organization, now, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            issued = operations.create_management_key(
                tenant_id=organization.tenant_id,
                name=values["name"],
                role=Role(values["role"]),
                scopes=values["chosen_scopes"],
                expires_at=values["expires_at"],
                actor=audit.member(person_id(request), organization.role),
                secrets=secret_store(),
                now=now,
            )
        except operations.TooManyManagementKeys:
            text = _(
                "An organization has at most %(limit)d management keys. Revoke one that is no longer used."
            )
            form.add_error(None, text % {"limit": MAX_MANAGEMENT_KEYS})
        except operations.InvalidManagementKey:
            form.add_error(None, _("The name cannot be stored as it is."))
        except operations.RoleTooHigh:
            form.add_error("role", _("A key can do no more than you."))
        else:
            return _show_secret(request, issued)
    return show_dialog(
        request,
        "console/management/_new.html",
        {"form": form},
        title=_("Create a management key"),
        section="keys",
        status=422 if form.errors else 200,
        private=True,
    )


@organization_page(Permission.MANAGE_MANAGEMENT_KEYS, methods=("GET", "HEAD", "POST"))
def revoke_management_key(
    request: HttpRequest, organization: Organization, management_key: str
) -> HttpResponse:
    """GET the question; POST ends the key."""
    row = _live_key(organization, management_key)
    if request.method == "POST":
        operations.revoke_management_key(
            tenant_id=organization.tenant_id,
            key_id=row.id,
            actor=audit.member(person_id(request), organization.role),
            now=utc_now(),
        )
        address = reverse("console:management-keys", args=[organization.public_id])
        return done(request, address, _("The management key “%(name)s” is revoked.") % {"name": row.name})
    return show_dialog(
        request,
        "console/management/_revoke.html",
        {"key": row},
        title=_("Revoke the management key “%(name)s”?") % {"name": row.name},
        section="keys",
    )


def _show_secret(request: HttpRequest, issued: operations.IssuedManagementKey) -> HttpResponse:
    """The one answer that holds the secret: a dialog that takes the place of the others, or a page."""
    context = {
        "section": "keys",
        "dialog_title": _("Your new management key"),
        "token": Unlogged(issued.token),
        "management_base": f"{settings.PORTAL_URL}/api/v1",
    }
    if not is_fragment(request):
        return show(request, "console/management/secret.html", context, private=True)
    response = show(request, "console/management/secret_dialog.html", context, private=True)
    return reswap(retarget(response, "#management-dialogs"), "innerHTML")


def _form(organization: Organization, now: datetime, data: Any = None) -> NewKeyForm:
    return NewKeyForm(
        data,
        own_role=organization.role,
        scopes=TENANT_SCOPES,
        lifetimes_days=LIFETIMES_DAYS,
        may_live_forever=True,
        now=now,
        auto_id="management_%s",
    )


def _live_key(organization: Organization, text: str) -> ManagementKeyRow:
    """Raises Http404 for what is no live key of this organization."""
    key_id = parse_id("management_key", text)
    row = find_management_key(tenant_id=organization.tenant_id, key_id=key_id, now=utc_now())
    if row is None or not row.is_live:
        raise Http404
    return row
