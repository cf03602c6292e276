"""Publishing a draft: from when, whom it reaches, what gets dearer, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog.pricing import publish as publishing
from models_catalog.pricing.drafts import DraftChanged, DraftNotFound, price_id
from models_catalog.pricing.locking import CatalogBusy
from models_catalog.pricing.publish import Publication
from models_catalog.pricing.queries import VersionPage
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.prices.forms import PublishForm, next_monday
from portal.backoffice.prices.pages import find_page, title_of
from portal.backoffice.prices.rows import first_increases
from portal.backoffice.prices.words import COMMON_ZONES, gap_text
from portal.kit.clock import utc_now
from portal.pages.answers import done
from quotas.replay.queries import replay_of

SECTION: Final = "prices"
SHOWN: Final = 12
# A moment that is chosen now is published a little later.
SLACK: Final = timedelta(minutes=5)


def notice_period() -> timedelta:
    """How long before an increase those who pay it hear of it."""
    return timedelta(days=settings.TUNING["SLUICE_PRICE_NOTICE_DAYS"])


@operator_page(methods=("GET", "HEAD", "POST"))
def publish(request: HttpRequest, price: str) -> HttpResponse:
    """GET the form with a moment that is possible; POST checks another one, or publishes."""
    page = find_page(price)
    if page.row.published_at is not None:
        raise Http404
    if page.gaps:
        missing = {"price": price, "gaps": [gap_text(gap) for gap in page.gaps]}
        return _dialog(request, "_incomplete", missing, _("This draft is not complete"))
    is_check = request.method == "POST" and request.POST.get("do") != "publish"
    if request.method == "POST":
        form = PublishForm(request.POST)
        form.check() if is_check else form.is_valid()
    else:
        form = _proposal(page.row.id, page.content.time_zone)
    chosen = form.moment if form.is_bound else _initial_moment(form)
    if form.is_bound and not is_check and not form.errors and chosen is not None:
        answer = _publish(request, page, form, chosen)
        if answer is not None:
            return answer
    replaces = bool(form.data.get("replaces")) if form.is_bound else False
    context = {
        "form": form,
        "price": price,
        "page": page,
        "expected": page.content.sha256,
        "zones": COMMON_ZONES,
        "replay": replay_of(version_id=page.row.id, limit=0),
        "notice_days": notice_period().days,
        **_preview(page.row.id, chosen, replaces),
    }
    status = 422 if form.errors else 200
    return _dialog(
        request, "_publish", context, _("Publish: %(price)s") % {"price": title_of(page)}, status=status
    )


def _publish(request: HttpRequest, page: VersionPage, form: PublishForm, at: datetime) -> HttpResponse | None:
    """Where it leads when it is published; None when the form now says why not."""
    try:
        plan = publishing.publish_draft(
            version_id=page.row.id,
            active_from=at,
            notice=notice_period(),
            actor=operator_actor(request),
            reason=form.cleaned_data["reason"],
            now=utc_now(),
            replaces_scheduled=form.cleaned_data["replaces"],
            expected=request.POST.get("expected") or None,
        )
    except publishing.InvalidMoment as error:
        form.add_error("date", _too_early(error.earliest_at, error.latest_at))
    except publishing.NoticeTooShort as error:
        form.add_error("date", _too_short(error))
    except publishing.MomentTaken as error:
        text = _("%(price)s begins at this very moment. Choose another, or withdraw what is scheduled.")
        form.add_error("replaces", text % {"price": price_id(error.version_id)})
    except DraftChanged:
        form.add_error(
            None, _("Somebody has edited the draft meanwhile. Look at it again below, then publish.")
        )
    except CatalogBusy:
        form.add_error(None, _("Somebody else is publishing right now. Try again in a moment."))
    except DraftNotFound:
        raise Http404 from None
    else:
        text = _("Published: it counts from %(moment)s UTC on.") % {"moment": f"{at:%Y-%m-%d %H:%M}"}
        if plan.payers:
            told = _("Those who pay more are told by mail.")
            text = f"{text} {told}"
        return done(request, reverse("backoffice:price", args=[page.row.public_id]), text)
    return None


def _preview(version_id: UUID, at: datetime | None, replaces: bool) -> dict[str, Any]:
    """What publishing at a moment would do; nothing while the moment cannot be read."""
    if at is None:
        return {"plan": None}
    try:
        plan = _plan(version_id, at, replaces)
    except publishing.MomentTaken as error:
        return {"plan": None, "taken": price_id(error.version_id)}
    payers = plan.payers
    return {
        "plan": plan,
        "is_too_early": at < plan.earliest_at,
        "payers": payers[:SHOWN],
        "more_payers": max(0, len(payers) - SHOWN),
        "payer_count": len(payers),
        "increases": first_increases(payers)[:SHOWN],
        "others": [one for one in plan.affected if not one.pays_more][:SHOWN],
        "other_count": len(plan.affected) - len(payers),
        "ends": price_id(plan.ends) if plan.ends else "",
        "withdraws": [price_id(version) for version in plan.withdraws],
    }


def _plan(version_id: UUID, at: datetime, replaces: bool) -> Publication:
    try:
        return publishing.plan_publication(
            version_id=version_id,
            active_from=at,
            notice=notice_period(),
            now=utc_now(),
            replaces_scheduled=replaces,
        )
    except DraftNotFound:
        raise Http404 from None


def _proposal(version_id: UUID, zone: str) -> PublishForm:
    """The next Monday, by the clocks of the draft's zone, that keeps the notice."""
    soon = utc_now() + publishing.MIN_LEAD + SLACK
    try:
        earliest_at = max(_plan(version_id, soon, False).earliest_at + SLACK, soon)
    except publishing.MomentTaken:
        earliest_at = soon
    monday = next_monday(earliest_at, zone)
    return PublishForm(
        initial={"date": monday.date().isoformat(), "time": monday.strftime("%H:%M"), "zone": zone}
    )


def _initial_moment(form: PublishForm) -> datetime | None:
    probe = PublishForm(form.initial)
    probe.check()
    return probe.moment


def _too_early(earliest_at: datetime, latest_at: datetime) -> str:
    return _("Choose a moment from %(earliest)s to %(latest)s UTC.") % {
        "earliest": _minute(earliest_at),
        "latest": f"{latest_at:%Y-%m-%d}",
    }


def _too_short(error: publishing.NoticeTooShort) -> str:
    return _("Something gets dearer, so it begins at %(earliest)s UTC at the earliest.") % {
        "earliest": _minute(error.earliest_at)
    }


def _minute(at: datetime) -> str:
    """Rounded up to the minute that a form can hold."""
    rounded = at if not (at.second or at.microsecond) else at + timedelta(minutes=1)
    return f"{rounded:%Y-%m-%d %H:%M}"


def _dialog(
    request: HttpRequest, name: str, context: dict[str, Any], title: str, *, status: int = 200
) -> HttpResponse:
    return show_dialog(
        request, f"backoffice/prices/{name}.html", context, title=title, section=SECTION, status=status
    )
