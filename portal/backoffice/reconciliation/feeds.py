"""Usage feeds: where each stands, its files, lines that could not be read, its switch and its credential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django_htmx.http import reswap, retarget

from models_catalog.engines.feeds import GENERIC_FORMATS, FeedFormat
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.payments.filters import choice
from portal.backoffice.payments.words import badge_of, choices, word_of
from portal.backoffice.reconciliation.filters import ALL
from portal.backoffice.reconciliation.words import FEED_FORMATS, LINE_STATES
from portal.backoffice.tenants.forms import ReasonForm
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import Unlogged, done, is_fragment, never_keep, show
from portal.pages.management_keys import secret_store
from quotas.models import QuarantineState
from quotas.reconciliation.ingest import operations
from quotas.reconciliation.review.feeds import (
    FeedRow,
    LineRow,
    find_line,
    list_feeds,
    list_files,
    list_lines,
)

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")


@operator_page()
def feeds(request: HttpRequest) -> HttpResponse:
    """All of them, with the lines in quarantine. In the address: state (OPEN without one, all), before."""
    rows = list_feeds(now=utc_now())
    context: dict[str, Any] = {
        "section": "reconciliation",
        "tab": "feeds",
        "rows": [(row, word_of(FEED_FORMATS, row.format)) for row in rows],
        **_lines(request, None),
    }
    return show(request, "backoffice/reconciliation/feeds.html", context)


@operator_page()
def feed(request: HttpRequest, feed: str) -> HttpResponse:
    """One, with its files and its lines in quarantine. In the address: as feeds."""
    row = _found(feed)
    context: dict[str, Any] = {
        "section": "reconciliation",
        "tab": "feeds",
        "row": row,
        "format": word_of(FEED_FORMATS, row.format),
        "files": list_files(feed_id=row.id),
        "backend": public_id(PREFIXES["backend"], row.backend_id),
        "push_url": _push_url(row),
        **_lines(request, row),
    }
    return show(request, "backoffice/reconciliation/feed.html", context)


def _push_url(row: FeedRow) -> str:
    """Where the backend sends it; empty for a feed that only a file can bring."""
    if row.format == FeedFormat.VLLM_OTLP:
        path = reverse("ingest:otlp-traces")
    elif row.format in GENERIC_FORMATS:
        path = reverse(f"ingest:{row.format}", args=[row.code])
    else:
        return ""
    return str(settings.PORTAL_URL).rstrip("/") + path


def _lines(request: HttpRequest, row: FeedRow | None) -> dict[str, Any]:
    query = request.GET
    state = query.get("state", "") or QuarantineState.OPEN
    chosen = None if state == ALL else choice(QuarantineState, state) or QuarantineState.OPEN
    before = optional_id("feed_line", query.get("before", ""))
    page = list_lines(feed_id=row.id if row else None, state=chosen, before=before, limit=PAGE_ROWS)
    return {
        "lines": [(line, *badge_of(LINE_STATES, line.state)) for line in page.rows],
        "next": public_id(PREFIXES["feed_line"], page.next) if page.next else "",
        "is_first": before is None,
        "line_state": chosen or ALL,
        "line_states": [*choices(LINE_STATES), (ALL, _("All"))],
    }


@operator_page(methods=FORM_METHODS)
def switch(request: HttpRequest, feed: str) -> HttpResponse:
    """GET the question; POST reason. Switched off it is not read, refuses what is pushed, and nothing waits
    for it any more."""
    row = _found(feed)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="switch_%s")
    address = reverse("backoffice:feed", args=[row.public_id])
    if request.method == "POST" and form.is_valid():
        operations.set_feed_enabled(
            feed_id=row.id,
            is_enabled=not row.is_enabled,
            actor=operator_actor(request),
            reason=form.cleaned_data["reason"],
            now=utc_now(),
        )
        told = _("The feed %(code)s is off.") if row.is_enabled else _("The feed %(code)s is on.")
        return done(request, address, told % {"code": row.code})
    if row.is_enabled:
        title, label = _("Switch the feed %(code)s off?"), _("Switch off")
        text = _(
            "It is not read and refuses what is pushed. The watermark and invoices no longer wait for it, "
            "and the calls of its backend stay unconfirmed."
        )
    else:
        title, label = _("Switch the feed %(code)s on?"), _("Switch on")
        text = _("It is read from where it stood, and the watermark and invoices wait for it again.")
    return _ask(request, form, title % {"code": row.code}, text, label, address)


@operator_page(methods=FORM_METHODS)
def credential(request: HttpRequest, feed: str) -> HttpResponse:
    """GET the question; POST reason. The answer to a right one holds the credential, and is the only one."""
    row = _found(feed)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="credential_%s")
    address = reverse("backoffice:feed", args=[row.public_id])
    if request.method == "POST" and form.is_valid():
        token = operations.issue_feed_credential(
            feed_id=row.id,
            actor=operator_actor(request),
            reason=form.cleaned_data["reason"],
            now=utc_now(),
            secrets=secret_store(),
        )
        return _show_secret(request, row, token, address)
    text = _("It is shown once. The backend signs what it pushes with it.")
    if row.has_credential:
        text = f"{text} {_('The one before is refused from now on.')}"
    title = _("A new credential for %(code)s") % {"code": row.code}
    return _ask(request, form, title, text, _("Make it"), address, private=True)


def _show_secret(request: HttpRequest, row: FeedRow, token: str, address: str) -> HttpResponse:
    context = {
        "section": "reconciliation",
        "dialog_title": _("The credential of %(code)s") % {"code": row.code},
        "token": Unlogged(token),
        "row": row,
        "close_url": address,
    }
    if not is_fragment(request):
        return show(request, "backoffice/reconciliation/secret.html", context, private=True)
    response = show(request, "backoffice/reconciliation/secret_dialog.html", context, private=True)
    return reswap(retarget(response, "#feed-dialogs"), "innerHTML")


@operator_page(methods=FORM_METHODS, atomic=False)
def retry(request: HttpRequest, feed_line: str) -> HttpResponse:
    """GET the question; POST reason. It is read again from its file."""
    line = _found_line(feed_line)
    text = _("The line is read again from its file, with what the parser and the catalog know now.")
    return _resolve(request, line, operations.retry_line, _("Read the line again?"), text, _("Read again"))


@operator_page(methods=FORM_METHODS, atomic=False)
def dismiss(request: HttpRequest, feed_line: str) -> HttpResponse:
    """GET the question; POST reason. Nothing can or need be made of it."""
    line = _found_line(feed_line)
    text = _("Nothing is made of the line. It stays in the list of what was dismissed.")
    return _resolve(request, line, operations.dismiss_line, _("Dismiss the line?"), text, _("Dismiss"))


def _resolve(
    request: HttpRequest, line: LineRow, operation: Callable[..., Any], title: str, text: str, label: str
) -> HttpResponse:
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="line_%s")
    address = reverse("backoffice:feed", args=[line.feed])
    if request.method == "POST" and form.is_valid():
        try:
            state = operation(
                line_id=line.id,
                actor=operator_actor(request),
                reason=form.cleaned_data["reason"],
                now=utc_now(),
            )
        except operations.NotOpen:
            form.add_error(None, _("It has been resolved already."))
        except operations.NothingToReadAgain:
            form.add_error(
                None, _("There is nothing to read again: it was pushed, or its file is gone. Dismiss it.")
            )
        else:
            still_open = state == QuarantineState.OPEN
            told = (
                _("The line %(id)s still cannot be read.")
                if still_open
                else _("The line %(id)s is resolved.")
            )
            return done(request, address, told % {"id": line.public_id})
    return _ask(request, form, title, text, label, address)


def _found(text: str) -> FeedRow:
    rows = list_feeds(now=utc_now(), feed_id=parse_id("feed", text))
    if not rows:
        raise Http404
    return rows[0]


def _found_line(text: str) -> LineRow:
    line = find_line(line_id=parse_id("feed_line", text))
    if line is None:
        raise Http404
    return line


def _ask(
    request: HttpRequest,
    form: ReasonForm,
    title: str,
    text: str,
    label: str,
    address: str,
    *,
    private: bool = False,
) -> HttpResponse:
    response = show_dialog(
        request,
        "backoffice/reconciliation/_reason.html",
        {"form": form, "text": text, "label": label, "back_url": address, "post_url": request.path},
        title=title,
        section="reconciliation",
        status=422 if form.errors else 200,
    )
    if private:
        never_keep(response)
    return response
