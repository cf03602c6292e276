"""API keys: the list, and making, changing, rotating and revoking one. A secret is in one answer, once."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django_htmx.http import reswap, retarget

from models_catalog import allow_lists
from models_catalog import operations as catalog_operations
from models_catalog import queries as catalog_queries
from portal.console.key_forms import ALL_MODELS, LISTED_MODELS, EditKeyForm, NewKeyForm
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import Unlogged, done, is_fragment, person_id, show, show_dialog
from quotas.metering import queries as metering_queries
from tenants import operations, queries
from tenants.permissions import Permission
from tenants.queries import KeyRow, KeyState

PAGE_SIZE: Final = 50
LIVE: Final = "live"
ENDED: Final = "ended"
ALL: Final = "all"
EXAMPLE_MODEL: Final = "vendor/name"


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A row of the list. `models`: None when every enabled model is allowed."""

    key: KeyRow
    models: tuple[str, ...] | None
    last_used_at: datetime | None

    @property
    def can_rotate(self) -> bool:
        return self.key.state == KeyState.ACTIVE


@organization_page(Permission.SEE_KEYS)
def keys(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The list. In the address: q (name, label, id, last characters), state (live, ended, all), page."""
    now = utc_now()
    state = request.GET.get("state", LIVE)
    text = request.GET.get("q", "").strip()[:100]
    all_keys = queries.list_api_keys(tenant_id=organization.tenant_id, now=now)
    wanted = [key for key in all_keys if _is_in(key, state) and _matches(key, text)]
    page = Paginator(wanted, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "section": "keys",
        "rows": _shown(organization, list(page)),
        "page": page,
        "has_any": bool(all_keys),
        "filters": {"q": text, "state": state},
        "states": ((LIVE, _("In use")), (ENDED, _("Ended")), (ALL, _("All"))),
        "is_filtered": bool(text) or state != LIVE,
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "key-rows":
        return show(request, "console/keys/_rows.html", context, private=True)
    if organization.may(Permission.MANAGE_KEYS):
        context["form"] = _new_form(organization, now)
    return show(request, "console/keys/list.html", context, private=True)


@organization_page(Permission.MANAGE_KEYS, methods=("GET", "HEAD", "POST"))
def new_key(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the form as a page; POST it. The answer to a right one holds the secret, and is the only one."""
    now = utc_now()
    form = _new_form(organization, now, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            issued = catalog_operations.issue_api_key(
                tenant_id=organization.tenant_id,
                name=values["name"],
                secrets=_secrets(),
                now=now,
                labels=values["labels"],
                expires_at=values["expires_at"],
                slugs=values["slugs"],
                created_by_id=person_id(request),
            )
        except operations.TooManyKeys:
            form.add_error(
                None,
                _("An organization has at most %(limit)d keys. Revoke one that is no longer used.")
                % {"limit": operations.MAX_KEYS_PER_TENANT},
            )
        except operations.InvalidKeyOptions:
            form.add_error(None, _("The name or a label cannot be stored as it is."))
        except catalog_operations.ModelNotFound:
            form.add_error("models", _("One of these models is no longer offered."))
        else:
            return _show_secret(request, organization, issued, title=_("Your new key"))
    return show_dialog(
        request,
        "console/keys/_new.html",
        {"form": form},
        title=_("Create a key"),
        section="keys",
        status=422 if form.errors else 200,
        private=True,
    )


@organization_page(Permission.MANAGE_KEYS, methods=("GET", "HEAD", "POST"))
def edit_key(request: HttpRequest, organization: Organization, key: str) -> HttpResponse:
    """Name, labels and allowed models of a live key."""
    row = _live_key(organization, key)
    shown = _shown(organization, [row])[0]
    listed = list(shown.models or ())
    form = EditKeyForm(
        request.POST if request.method == "POST" else None,
        slugs=sorted({*_enabled(organization), *listed}),
        initial={
            "name": row.name,
            "labels": dict(row.labels),
            "access": ALL_MODELS if shown.models is None else LISTED_MODELS,
            "models": listed,
        },
        auto_id="edit_%s",
    )
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            catalog_operations.change_api_key(
                tenant_id=organization.tenant_id,
                key_id=row.id,
                name=values["name"],
                labels=values["labels"],
                slugs=values["slugs"],
            )
        except operations.InvalidKeyOptions:
            form.add_error(None, _("The name or a label cannot be stored as it is."))
        except catalog_operations.ModelNotFound:
            form.add_error("models", _("One of these models is no longer offered."))
        else:
            return done(request, _keys_url(organization), _("The key “%(name)s” is saved.") % values)
    return show_dialog(
        request,
        "console/keys/_edit.html",
        {"form": form, "key": row},
        title=_("Edit the key “%(name)s”") % {"name": row.name},
        section="keys",
        status=422 if form.errors else 200,
    )


@organization_page(Permission.MANAGE_KEYS, methods=("GET", "HEAD", "POST"))
def rotate_key(request: HttpRequest, organization: Organization, key: str) -> HttpResponse:
    """GET what rotating means; POST does it, and its answer holds the successor's secret."""
    row = _live_key(organization, key)
    error = ""
    if request.method == "POST":
        try:
            issued = catalog_operations.rotate_api_key(
                tenant_id=organization.tenant_id,
                key_id=row.id,
                secrets=_secrets(),
                now=utc_now(),
                overlap_s=settings.TUNING["SLUICE_KEY_OVERLAP_S"],
                created_by_id=person_id(request),
            )
        except operations.KeyNotFound:
            error = _("This key has been rotated already; its successor is in the list.")
        except operations.TooManyKeys:
            error = _("An organization has at most %(limit)d keys. Revoke one that is no longer used.") % {
                "limit": operations.MAX_KEYS_PER_TENANT
            }
        else:
            title = _("The successor of “%(name)s”") % {"name": row.name}
            return _show_secret(request, organization, issued, title=title, old=row)
    return show_dialog(
        request,
        "console/keys/_rotate.html",
        {"key": row, "overlap_text": _overlap_text(), "error": error},
        title=_("Rotate the key “%(name)s”") % {"name": row.name},
        section="keys",
        status=422 if error else 200,
        private=True,
    )


@organization_page(Permission.MANAGE_KEYS, methods=("GET", "HEAD", "POST"))
def revoke_key(request: HttpRequest, organization: Organization, key: str) -> HttpResponse:
    """GET the question; POST with the key's name as `confirm` ends it."""
    row = _live_key(organization, key)
    error = ""
    if request.method == "POST":
        if request.POST.get("confirm", "").strip() == row.name:
            operations.revoke_api_key(tenant_id=organization.tenant_id, key_id=row.id, now=utc_now())
            text = _("The key “%(name)s” is revoked.") % {"name": row.name}
            return done(request, _keys_url(organization), text)
        error = _("That is not the name of the key.")
    return show_dialog(
        request,
        "console/keys/_revoke.html",
        {"key": row, "error": error, "typed": request.POST.get("confirm", "")[:200]},
        title=_("Revoke the key “%(name)s”?") % {"name": row.name},
        section="keys",
        status=422 if error else 200,
    )


def _show_secret(
    request: HttpRequest,
    organization: Organization,
    issued: operations.IssuedKey,
    *,
    title: str,
    old: KeyRow | None = None,
) -> HttpResponse:
    """The one answer that holds the secret: a dialog that takes the place of the others, or a page."""
    # What the key may use is asked of the key, so that the samples work as they stand.
    allowed = allow_lists.models_of_keys(tenant_id=organization.tenant_id, key_ids=[issued.id])
    slugs = allowed.get(issued.id) or _enabled(organization)
    context: dict[str, Any] = {
        "section": "keys",
        "dialog_title": title,
        "token": Unlogged(issued.token),
        "slug": slugs[0] if slugs else EXAMPLE_MODEL,
        "has_model": bool(slugs),
        "old": old,
        "overlap_text": _overlap_text(),
    }
    if not is_fragment(request):
        return show(request, "console/keys/secret.html", context, private=True)
    response = show(request, "console/keys/secret_dialog.html", context, private=True)
    return reswap(retarget(response, "#key-dialogs"), "innerHTML")


def _shown(organization: Organization, rows: list[KeyRow]) -> list[ShownKey]:
    ids = [row.id for row in rows]
    listed = allow_lists.models_of_keys(tenant_id=organization.tenant_id, key_ids=ids)
    used = metering_queries.last_used(tenant_id=organization.tenant_id)
    return [
        ShownKey(row, listed.get(row.id, ()) if row.restricts_models else None, used.get(row.id))
        for row in rows
    ]


def _new_form(organization: Organization, now: datetime, data: Any = None) -> NewKeyForm:
    return NewKeyForm(data, slugs=_enabled(organization), now=now, auto_id="key_%s")


def _enabled(organization: Organization) -> list[str]:
    models = catalog_queries.enabled_models(
        tenant_id=organization.tenant_id, currency=organization.currency, now=utc_now()
    )
    return [model.slug for model in models]


def _live_key(organization: Organization, text: str) -> KeyRow:
    """Raises Http404 for what is no live key of this organization."""
    key_id: UUID = parse_id("api_key", text)
    row = queries.find_api_key(tenant_id=organization.tenant_id, key_id=key_id, now=utc_now())
    if row is None or not row.is_live:
        raise Http404
    return row


def _secrets() -> SecretStore:
    assert settings.SECRET_STORE is not None, "the web process has a secret store"
    return settings.SECRET_STORE


def _keys_url(organization: Organization) -> str:
    return reverse("console:keys", args=[organization.public_id])


def _overlap_text() -> str:
    """How long a rotated key goes on, in words; empty when it does not."""
    overlap_s: int = settings.TUNING["SLUICE_KEY_OVERLAP_S"]
    if not overlap_s:
        return ""
    if overlap_s % 3600:
        minutes = -(-overlap_s // 60)
        return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}
    hours = overlap_s // 3600
    return ngettext("%(n)d hour", "%(n)d hours", hours) % {"n": hours}


def _is_in(key: KeyRow, state: str) -> bool:
    return state == ALL or key.is_live == (state != ENDED)


def _matches(key: KeyRow, text: str) -> bool:
    labels = [f"{name}={value}" for name, value in key.labels.items()]
    where = [key.name, key.public_id, key.secret_hint, key.created_by_email, *labels]
    return not text or any(text.lower() in one.lower() for one in where)
