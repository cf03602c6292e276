"""Drafts: begun, edited as a whole, thrown away."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect

from models_catalog.pricing import drafts, queries
from models_catalog.pricing.checks import InvalidTariff
from models_catalog.pricing.content import CLASS_ORDER, TIERS
from models_catalog.pricing.words import SERVICE_TIERS, TOKEN_CLASSES
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.prices.editor import Editor, change_rows, editor_of, entries_of, read_editor
from portal.backoffice.prices.forms import DiscardForm, DraftForm
from portal.backoffice.prices.words import COMMON_ZONES
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import done, is_fragment, show
from tenants.queries import find_tenants

SECTION: Final = "prices"


@operator_page(methods=("GET", "HEAD", "POST"))
def new(request: HttpRequest) -> HttpResponse:
    """A new draft. model, currency and organization in the address fill the form in."""
    if request.method == "POST":
        form = DraftForm(request.POST, currencies=settings.CURRENCIES)
        version_id = _create(request, form) if form.is_valid() else None
        if version_id is not None:
            return _go(request, reverse("backoffice:price-edit", args=[drafts.price_id(version_id)]))
    else:
        asked = {name: request.GET.get(name, "")[:254] for name in ("model", "organization")}
        currency = request.GET.get("currency", "")
        initial = {"begins": "copy", "currency": currency if currency in settings.CURRENCIES else ""}
        form = DraftForm(initial={**asked, **initial}, currencies=settings.CURRENCIES)
    return show_dialog(
        request,
        "backoffice/prices/_new.html",
        {"form": form, "slugs": queries.model_slugs()},
        title=_("Draft a price"),
        section=SECTION,
        status=422 if form.errors else 200,
    )


@operator_page(methods=("POST",))
def copy(request: HttpRequest, price: str) -> HttpResponse:
    """A draft in the place of a version, with its content."""
    version = _version(price)
    try:
        version_id = drafts.create_draft(
            model_id=version.model_id,
            currency=version.currency,
            tenant_id=version.tenant_id,
            copy_of=version.id,
            actor=operator_actor(request),
            now=utc_now(),
        )
    except drafts.TooManyDrafts:
        text = _("There are %(count)s drafts of this price already. Discard one first.")
        return done(request, reverse("backoffice:price", args=[price]), text % {"count": drafts.MAX_DRAFTS})
    return _go(request, reverse("backoffice:price-edit", args=[drafts.price_id(version_id)]))


@operator_page(methods=("GET", "HEAD", "POST"))
def edit(request: HttpRequest, price: str) -> HttpResponse:
    """The form. POST saves it, or adds and takes away rows, which nothing but the form knows of."""
    version_id = parse_id("price", price)
    try:
        draft, content = queries.draft_of(version_id=version_id)
    except drafts.DraftNotFound:
        raise Http404 from None
    if request.method != "POST":
        return _show_editor(request, price, draft, editor_of(content))
    editor = read_editor(request.POST.dict())
    if change_rows(editor, request.POST.get("do", "")):
        return _show_editor(request, price, draft, editor)
    if _save(request, version_id, editor):
        return done(request, reverse("backoffice:price", args=[price]), _("The draft is saved."))
    return _show_editor(request, price, draft, editor, status=422)


@operator_page(methods=("GET", "HEAD", "POST"))
def discard(request: HttpRequest, price: str) -> HttpResponse:
    """GET the question; POST throws the draft away."""
    version_id = parse_id("price", price)
    form = DiscardForm(request.POST or None)
    try:
        draft, _content = queries.draft_of(version_id=version_id)
        if request.method == "POST" and form.is_valid():
            drafts.discard_draft(
                version_id=version_id,
                actor=operator_actor(request),
                now=utc_now(),
                reason=form.cleaned_data["reason"],
            )
            # The page below the dialog is the draft's own, which is gone.
            address = reverse("backoffice:prices")
            answer = done(request, address, _("The draft is discarded."))
            return HttpResponseClientRedirect(address) if is_fragment(request) else answer
    except drafts.DraftNotFound:
        raise Http404 from None
    return show_dialog(
        request,
        "backoffice/prices/_discard.html",
        {"form": form, "price": price, "draft": draft},
        title=_("Discard this draft?"),
        section=SECTION,
        status=422 if form.is_bound else 200,
    )


def _create(request: HttpRequest, form: DraftForm) -> UUID | None:
    """The new draft; None when the form now says what is wrong."""
    values, now = form.cleaned_data, utc_now()
    model_id = queries.model_of(slug=values["model"])
    if model_id is None:
        form.add_error("model", _("There is no such model."))
        return None
    tenant_id = _organization(form, values["organization"])
    if form.errors:
        return None
    currency = values["currency"]
    source: UUID | None = None
    if values["begins"] == "copy":
        place = {"model_id": model_id, "currency": currency, "now": now}
        source = queries.in_force(tenant_id=tenant_id, **place) or queries.in_force(tenant_id=None, **place)
    try:
        return drafts.create_draft(
            model_id=model_id,
            currency=currency,
            currencies=settings.CURRENCIES,
            tenant_id=tenant_id,
            copy_of=source,
            actor=operator_actor(request),
            now=now,
        )
    except drafts.WrongCurrency:
        form.add_error("currency", _("A private price is in the currency of the organization's wallet."))
    except drafts.TooManyDrafts:
        form.add_error(
            None,
            _("There are %(count)s drafts of this price already. Discard one first.")
            % {"count": drafts.MAX_DRAFTS},
        )
    return None


def _organization(form: DraftForm, text: str) -> UUID | None:
    """The organization that a text names; the form says when it names none or several."""
    text = text.replace("\0", "").strip()
    if not text:
        return None
    found = find_tenants(text=text)
    if len(found) == 1:
        return found[0].id
    if not found:
        form.add_error("organization", _("No organization has this name, id or member."))
    else:
        names = ", ".join(f"{tenant.name} ({tenant.public_id})" for tenant in found[:5])
        form.add_error(
            "organization",
            _("Several organizations match; write the id of one: %(names)s") % {"names": names},
        )
    return None


def _save(request: HttpRequest, version_id: UUID, editor: Editor) -> bool:
    """Whether the draft now says what the form does; otherwise the form says why not."""
    entries = entries_of(editor)
    if entries is None:
        return False
    windows, lines = entries
    try:
        drafts.update_draft(
            version_id=version_id,
            time_zone=editor.time_zone,
            lines=lines,
            windows=windows,
            actor=operator_actor(request),
            now=utc_now(),
            expected=editor.expected or None,
        )
    except InvalidTariff as error:
        editor.note(error)
    except drafts.DraftChanged:
        editor.errors["form"] = _(
            "Somebody else has saved this draft meanwhile. Nothing was overwritten: open it in another tab "
            "to compare, then save once more to put yours in its place."
        )
        _draft, content = queries.draft_of(version_id=version_id)
        editor.expected = content.sha256
    except drafts.DraftNotFound:
        raise Http404 from None
    return not editor.has_errors


def _show_editor(
    request: HttpRequest, price: str, draft: Any, editor: Editor, *, status: int = 200
) -> HttpResponse:
    context = {
        "section": SECTION,
        "price": price,
        "draft": draft,
        "editor": editor,
        "zones": COMMON_ZONES,
        "classes": [(name, TOKEN_CLASSES[name]) for name in CLASS_ORDER],
        "tiers": [(name, SERVICE_TIERS[name]) for name in TIERS],
    }
    part = is_fragment(request) and request.headers.get("HX-Target") == "price-editor"
    return show(request, f"backoffice/prices/{'_editor' if part else 'edit'}.html", context, status=status)


def _version(price: str) -> Any:
    version = queries.find_version(version_id=parse_id("price", price))
    if version is None:
        raise Http404
    return version


def _go(request: HttpRequest, address: str) -> HttpResponse:
    """To another page, from a dialog or from a page."""
    return HttpResponseClientRedirect(address) if is_fragment(request) else redirect(address)
