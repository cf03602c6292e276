"""Verifiable bills: asking for one, how far it is, the file, and how it is checked."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import done, is_fragment, show
from portal.pages.downloads import file_download
from portal.pages.periods import FIRST_YEAR, LAST_YEAR
from quotas.bundles import operations
from quotas.bundles.queries import BundleRow, find_bundle, iter_bundle, list_bundles
from quotas.models import BundleFailure
from tenants.operations import audit
from tenants.permissions import Permission

MONTHS: Final = 13
DAY: Final = timedelta(days=1)
FAILURES: Final = {
    BundleFailure.NOT_FINISHED: gettext_lazy("It was begun several times, never finished. Ask again."),
    BundleFailure.TOO_LARGE: gettext_lazy(
        "The period has more calls than one bundle holds. Choose fewer days."
    ),
    BundleFailure.NO_KEY: gettext_lazy(
        "This installation has no key to sign with. An operator has to add one."
    ),
    BundleFailure.DIFFERS: gettext_lazy(
        "Its lines do not add up to the hourly sums of your usage, so it was not signed. Please tell us."
    ),
}


class DaysForm(forms.Form):
    """A month (YYYY-MM), or the first and the last day."""

    month = forms.RegexField(r"^[0-9]{4}-(0[1-9]|1[0-2])$", required=False)
    first = forms.DateField(required=False)
    last = forms.DateField(required=False)

    def period(self) -> tuple[datetime, datetime] | None:
        """Half-open; None where nothing whole was said."""
        if not self.is_valid():
            return None
        said = self.cleaned_data
        if said["month"] and FIRST_YEAR <= int(said["month"][:4]) <= LAST_YEAR:
            start = datetime.strptime(said["month"], "%Y-%m").replace(tzinfo=UTC)
            return start, _next_month(start)
        if (
            said["first"]
            and said["last"]
            and FIRST_YEAR <= said["first"].year <= said["last"].year <= LAST_YEAR
        ):
            return _midnight(said["first"]), _midnight(said["last"]) + DAY
        return None


@organization_page(Permission.SEE_BILLING)
def bundles(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The list, which asks for itself again while one is made."""
    if is_fragment(request):
        return show(request, "console/bundles/_list.html", _list_context(organization), private=True)
    return _page(request, organization)


@organization_page(Permission.SEE_BILLING, methods=("POST",))
def make_bundle(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST month, or from and to (both included). Errors: 422 with the page."""
    now = utc_now()
    said = {
        "month": request.POST.get("month"),
        "first": request.POST.get("from"),
        "last": request.POST.get("to"),
    }
    period = DaysForm(said).period()
    try:
        if period is None:
            raise operations.InvalidPeriod
        from_at, to_at = period
        operations.request_bundle(
            tenant_id=organization.tenant_id,
            from_at=from_at,
            # A month that is not over yet ends today.
            to_at=min(to_at, _midnight(now) + DAY) if said["month"] else to_at,
            actor=audit.member(organization.user_id, organization.role),
            now=now,
        )
    except operations.InvalidPeriod:
        text = _(
            "A period has a first and a last day, in this order, at most a year apart and not in the future."
        )
        return _page(request, organization, error=text)
    except operations.BundleUnderWay:
        return _page(request, organization, error=_("Another bill is being made. Wait until it is ready."))
    except operations.TooManyBundles:
        text = _("At most %(most)s bills can be asked for within 24 hours. Try again later.")
        return _page(request, organization, error=text % {"most": operations.MAX_A_DAY})
    return done(
        request, reverse("console:bundles", args=[organization.public_id]), _("The bill is being made.")
    )


@organization_page(Permission.SEE_BILLING)
def bundle_file(request: HttpRequest, organization: Organization, bundle: str) -> HttpResponseBase:
    """The file, whose length is told, so that half a download is not taken for a whole one."""
    row = find_bundle(bundle_id=parse_id("bundle", bundle))
    if row is None or not row.is_ready:
        raise Http404
    pieces = iter_bundle(tenant_id=organization.tenant_id, bundle_id=row.id)
    response = file_download(request, pieces, _file_name(row), content_type="application/zip")
    response["Content-Length"] = str(row.size_bytes)
    return response


def _page(request: HttpRequest, organization: Organization, *, error: str = "") -> HttpResponse:
    keys = settings.SECRET_STORE.public_keys() if settings.SECRET_STORE else []
    keys_url = f"{settings.PORTAL_URL}{reverse('storefront:bundle-keys')}"
    script_url = f"{settings.PORTAL_URL}{reverse('storefront:verify-bundle')}"
    shown = _list_context(organization)
    ready = [one["row"] for one in shown["rows"] if one["row"].is_ready]
    file_name = _file_name(ready[0]) if ready else "bill.zip"
    context = {
        **shown,
        "section": "billing",
        "error": error,
        "months": _months(utc_now()),
        "first_day": request.POST.get("from", ""),
        "last_day": request.POST.get("to", ""),
        "keys": keys,
        "keys_url": keys_url,
        "get_script": f"curl -O {script_url}",
        "check": f"python3 verify_bundle.py {file_name} --key {keys[0].hex}" if keys else "",
        "kept_days": settings.TUNING["SLUICE_BUNDLE_DAYS"],
    }
    return show(request, "console/bundles/page.html", context, status=422 if error else 200, private=True)


def _list_context(organization: Organization) -> dict[str, Any]:
    rows = list_bundles(tenant_id=organization.tenant_id)
    return {
        "rows": [
            {
                "row": row,
                "last_day": row.to_at - DAY,
                "failure": FAILURES[row.failure] if row.failure else "",
                "size": _size_text(row.size_bytes),
            }
            for row in rows
        ],
        "is_making": any(row.is_open for row in rows),
    }


def _months(now: datetime) -> list[tuple[str, str]]:
    """The month before this one first, which is closed."""
    this = _midnight(now).replace(day=1)
    found, month = [], this
    for _number in range(MONTHS):
        month = (month - DAY).replace(day=1)
        found.append((f"{month:%Y-%m}", date_format(month, "YEAR_MONTH_FORMAT")))
    so_far = _("%(month)s, until now") % {"month": date_format(this, "YEAR_MONTH_FORMAT")}
    return [*found[:1], (f"{this:%Y-%m}", so_far), *found[1:]]


def _next_month(start: datetime) -> datetime:
    return (start + 32 * DAY).replace(day=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _file_name(row: BundleRow) -> str:
    return f"bill-{row.from_at:%Y-%m-%d}-{row.to_at - DAY:%Y-%m-%d}-{row.public_id}.zip"


def _size_text(size_bytes: int) -> str:
    if size_bytes < 10**6:
        return f"{max(1, size_bytes // 1000)} kB"
    return f"{size_bytes / 10**6:.1f} MB"
