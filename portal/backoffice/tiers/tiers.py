"""Tiers: the list with what each allows, making and changing one, deleting one that nobody had."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog import queries as catalog_queries
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tiers.forms import ModelRows, ReasonForm, TierForm, model_rows_initial
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import done, show
from portal.pages.limits import KIND_NAMES, value_text
from quotas.limits import tiers as domain
from quotas.limits.tiers import TierCeiling, TierRow
from tenants.operations import audit

MAX_MODELS = 200


@dataclass(frozen=True, slots=True)
class ShownTier:
    """A row of the list: rules as amounts by currency, limits in words."""

    tier: TierRow
    rules: tuple[tuple[int, str], ...]
    limits: tuple[tuple[str, str, str], ...]


@operator_page()
def tiers(request: HttpRequest) -> HttpResponse:
    """The list."""
    rows = [_shown(row) for row in domain.list_tiers(now=utc_now())]
    context = {"section": "tiers", "rows": rows, "has_default": any(row.tier.is_default for row in rows)}
    return show(request, "backoffice/tiers/list.html", context)


@operator_page(methods=("GET", "HEAD", "POST"))
def new_tier(request: HttpRequest) -> HttpResponse:
    """GET the form; POST it."""
    return _edit(request, None)


@operator_page(methods=("GET", "HEAD", "POST"))
def tier(request: HttpRequest, tier: str) -> HttpResponse:
    """GET one tier as a form; POST it: it changes at once for everybody who has it."""
    return _edit(request, _found(tier))


@operator_page(methods=("GET", "HEAD", "POST"))
def delete_tier(request: HttpRequest, tier: str) -> HttpResponse:
    """GET the question; POST deletes a tier that nobody ever had."""
    row = _found(tier)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="delete_%s")
    if request.method == "POST" and form.is_valid():
        try:
            domain.delete_tier(
                tier_id=row.id, actor=operator_actor(request), reason=form.cleaned_data["reason"]
            )
        except domain.TierInUse:
            form.add_error(None, _("Somebody has or had this tier, or it is everybody's; it stays."))
        except audit.ReasonMissing:
            form.add_error("reason", _("Give a reason of 3 to 500 characters."))
        else:
            return done(request, _list_url(), _("The tier %(name)s is deleted.") % {"name": row.name})
    return show_dialog(
        request,
        "backoffice/tiers/_delete.html",
        {"form": form, "tier": row},
        title=_("Delete the tier %(name)s?") % {"name": row.name},
        section="tiers",
        status=422 if form.errors else 200,
    )


def _edit(request: HttpRequest, row: TierRow | None) -> HttpResponse:
    data = request.POST if request.method == "POST" else None
    held = {limit.currency for limit in row.limits} if row else set()
    currencies = sorted({*settings.CURRENCIES, *held} - {""})
    form = TierForm(data, currencies=currencies, tier=row, auto_id="tier_%s")
    models = ModelRows(
        data,
        prefix="models",
        initial=model_rows_initial(row),
        form_kwargs={"models": _models(row, currencies[0], utc_now()), "currencies": currencies},
        auto_id="tier_%s",
    )
    # Both, so that everything wrong is said at once.
    if data is not None and all([form.is_valid(), models.is_valid()]):
        ceilings = [one.cleaned_data["ceiling"] for one in models if one.cleaned_data.get("ceiling")]
        saved = _save(request, form, row, ceilings)
        if saved:
            text = _("The tier %(name)s is saved.") % {"name": form.cleaned_data["name"]}
            return done(request, _list_url(), text)
    context = {"section": "tiers", "form": form, "models": models, "tier": row}
    has_errors = bool(form.errors) or any(models.errors)
    return show(request, "backoffice/tiers/edit.html", context, status=422 if has_errors else 200)


def _save(request: HttpRequest, form: TierForm, row: TierRow | None, ceilings: list[TierCeiling]) -> bool:
    """Whether it could be; otherwise the form says why not."""
    values = form.cleaned_data
    try:
        domain.save_tier(
            tier_id=row.id if row else None,
            code=values["code"],
            name=values["name"],
            rank=values["rank"],
            is_default=values["is_default"],
            rules=values["rules"],
            limits=[*values["ceilings"], *ceilings],
            actor=operator_actor(request),
            reason=values["reason"],
        )
    except domain.TierTaken:
        form.add_error(None, _("Another tier has this code or this rank."))
    except domain.DefaultTierNeeded:
        form.add_error("is_default", _("Make another tier everybody's instead; then this one is not."))
    except domain.InvalidTier as error:
        form.add_error(None, _("This tier cannot be saved: %(why)s.") % {"why": error})
    except audit.ReasonMissing:
        form.add_error("reason", _("Give a reason of 3 to 500 characters."))
    else:
        return True
    return False


def _found(text: str) -> TierRow:
    try:
        return domain.find_tier(tier_id=parse_id("tier", text))
    except domain.TierNotFound:
        raise Http404 from None


def _models(row: TierRow | None, currency: str, now: datetime) -> list[tuple[UUID, str]]:
    """What is on offer, and what the tier limits already."""
    listed = catalog_queries.list_models(currency=currency, now=now, sort="name", limit=MAX_MODELS)
    held = {
        limit.model_id: limit.model_slug
        for limit in (row.limits if row else ())
        if limit.model_id is not None
    }
    return list({**{model.id: model.slug for model in listed.rows}, **held}.items())


def _shown(row: TierRow) -> ShownTier:
    limits: list[tuple[str, str, str]] = [
        (str(KIND_NAMES[limit.kind]), limit.model_slug, value_text(limit.kind, limit.value, limit.currency))
        for limit in row.limits
    ]
    return ShownTier(row, tuple((nanos, currency) for currency, nanos in row.rules.items()), tuple(limits))


def _list_url() -> str:
    return reverse("backoffice:tiers")
