"""The end of a private price: from then on the list counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog.pricing import publish as publishing
from models_catalog.pricing.locking import CatalogBusy
from models_catalog.pricing.queries import VersionPage
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.prices.forms import MomentForm, next_monday
from portal.backoffice.prices.pages import SECTION, find_page, title_of
from portal.backoffice.prices.publishing import SLACK, _minute, notice_period
from portal.backoffice.prices.rows import first_increases
from portal.backoffice.prices.words import COMMON_ZONES
from portal.kit.clock import utc_now
from portal.pages.answers import done


@operator_page(methods=("GET", "HEAD", "POST"))
def end(request: HttpRequest, price: str) -> HttpResponse:
    """GET the form with an end that is possible; POST checks another one, or sets it."""
    page = find_page(price)
    is_check = request.method == "POST" and request.POST.get("do") != "end"
    try:
        if request.method == "POST":
            form = MomentForm(request.POST)
            form.check() if is_check else form.is_valid()
        else:
            form = _proposal(page)
        chosen = form.moment if form.is_bound else None
        if form.is_bound and not is_check and not form.errors and chosen is not None:
            answer = _end(request, page, form, chosen)
            if answer is not None:
                return answer
        context = {
            "form": form,
            "price": price,
            "page": page,
            "zones": COMMON_ZONES,
            "notice_days": notice_period().days,
            **_preview(page, chosen or _initial_moment(form)),
        }
    except publishing.NotAPrivatePrice:
        raise Http404 from None
    return show_dialog(
        request,
        "backoffice/prices/_end.html",
        context,
        title=_("End: %(price)s") % {"price": title_of(page)},
        section=SECTION,
        status=422 if form.errors else 200,
    )


def _end(request: HttpRequest, page: VersionPage, form: MomentForm, at: datetime) -> HttpResponse | None:
    try:
        plan = publishing.end_private_price(
            version_id=page.row.id,
            ends_at=at,
            notice=notice_period(),
            actor=operator_actor(request),
            reason=form.cleaned_data["reason"],
            now=utc_now(),
        )
    except publishing.InvalidMoment as error:
        text = _("Choose a moment from %(earliest)s UTC on.")
        form.add_error("date", text % {"earliest": _minute(error.earliest_at)})
    except publishing.NoticeTooShort as error:
        text = _("The list is dearer, so the price ends at %(earliest)s UTC at the earliest.")
        form.add_error("date", text % {"earliest": _minute(error.earliest_at)})
    except CatalogBusy:
        form.add_error(None, _("Somebody else is publishing right now. Try again in a moment."))
    else:
        text = _("It ends at %(moment)s UTC.") % {"moment": f"{plan.active_from:%Y-%m-%d %H:%M}"}
        return done(request, reverse("backoffice:price", args=[page.row.public_id]), text)
    return None


def _preview(page: VersionPage, at: datetime | None) -> dict[str, Any]:
    if at is None:
        return {"plan": None}
    plan = _plan(page, at)
    return {
        "plan": plan,
        "is_too_early": plan.active_from < plan.earliest_at,
        "increases": first_increases(plan.payers),
        "reaches_anybody": bool(plan.affected),
    }


def _plan(page: VersionPage, at: datetime) -> publishing.Publication:
    return publishing.plan_private_end(
        version_id=page.row.id, ends_at=at, notice=notice_period(), now=utc_now()
    )


def _proposal(page: VersionPage) -> MomentForm:
    soon = utc_now() + publishing.MIN_LEAD + SLACK
    earliest_at: datetime = max(_plan(page, soon).earliest_at + timedelta(minutes=5), soon)
    zone = page.content.time_zone
    monday = next_monday(earliest_at, zone)
    return MomentForm(
        initial={"date": monday.date().isoformat(), "time": monday.strftime("%H:%M"), "zone": zone}
    )


def _initial_moment(form: MomentForm) -> datetime | None:
    if form.is_bound:
        return None
    probe = MomentForm(form.initial)
    probe.check()
    return probe.moment
