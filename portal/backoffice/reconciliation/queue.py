"""The queue of discrepancies, one of them with both witnesses side by side, and all of a choice as CSV."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.translation import gettext as _

from portal.backoffice.pages import operator_page
from portal.backoffice.payments.words import badge_of, choices, word_of
from portal.backoffice.reconciliation.filters import (
    ALL,
    DISCREPANCY_NAMES,
    OPEN,
    discrepancy_filter,
    given,
)
from portal.backoffice.reconciliation.words import (
    CAUSES,
    DISCREPANCY_KINDS,
    DISCREPANCY_STATES,
    DISCREPANCY_TEXTS,
    FINISHES,
    VERDICTS,
    WINDOW_STATES,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages import words as call_words
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import show
from portal.pages.downloads import csv_download
from quotas.reconciliation.review.discrepancies import (
    Counts,
    DiscrepancyRow,
    backend_codes,
    find_discrepancy,
    iter_discrepancies_csv,
    list_discrepancies,
)
from quotas.reconciliation.review.evidence import Evidence, evidence_of

PAGE_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """A discrepancy with its words. differences: class of tokens, gateway, feed, and by how much."""

    row: DiscrepancyRow
    kind: str
    text: str
    tone: str
    state: str
    finish: str
    differences: tuple[tuple[str, int | None, int | None, int | None], ...]


@operator_page()
def discrepancies(request: HttpRequest) -> HttpResponse:
    """The list. In the address: state (open, all or one), kind, backend, organization, day, late, before."""
    query = request.GET
    filters = discrepancy_filter(query)
    before = optional_id("discrepancy", query.get("before", ""))
    page = list_discrepancies(filters=filters, before=before, limit=PAGE_ROWS)
    typed = given(query, DISCREPANCY_NAMES)
    context: dict[str, Any] = {
        "section": "reconciliation",
        "tab": "discrepancies",
        "rows": shown_discrepancies(page.rows),
        "next": public_id(PREFIXES["discrepancy"], page.next) if page.next else "",
        "is_first": before is None,
        "filters": typed,
        "is_filtered": any(value for name, value in typed.items() if (name, value) != ("state", OPEN)),
        "shows_open": typed["state"] in ("", OPEN),
        "states": [(OPEN, _("To be looked at")), (ALL, _("All")), *choices(DISCREPANCY_STATES)],
        "kinds": choices(DISCREPANCY_KINDS),
        "backends": backend_codes(),
        "can_decide": any(row.is_open for row in page.rows),
        "can_approve": any(row.is_waiting for row in page.rows),
    }
    return show(request, "backoffice/reconciliation/discrepancies.html", context)


@operator_page()
def discrepancies_csv(request: HttpRequest) -> StreamingHttpResponse:
    """All of the list's choice."""
    pieces = iter_discrepancies_csv(filters=discrepancy_filter(request.GET))
    return csv_download(request, pieces, f"discrepancies-{utc_now():%Y-%m-%d}.csv")


@operator_page()
def discrepancy(request: HttpRequest, discrepancy: str) -> HttpResponse:
    """One, with everything that both sides say of it."""
    row = found_discrepancy(discrepancy)
    (shown,) = shown_discrepancies([row])
    evidence = evidence_of(row=row)
    context = {
        "section": "reconciliation",
        "tab": "discrepancies",
        "shown": shown,
        "row": row,
        "evidence": evidence,
        **_evidence_words(evidence),
    }
    return show(request, "backoffice/reconciliation/discrepancy.html", context)


def found_discrepancy(text: str) -> DiscrepancyRow:
    row = find_discrepancy(discrepancy_id=parse_id("discrepancy", text))
    if row is None:
        raise Http404
    return row


def shown_discrepancies(rows: Iterable[DiscrepancyRow]) -> list[Shown]:
    return [
        Shown(
            row,
            word_of(DISCREPANCY_KINDS, row.kind),
            word_of(DISCREPANCY_TEXTS, row.kind),
            *badge_of(DISCREPANCY_STATES, row.state),
            finish=word_of(FINISHES, row.feed_finish) if row.feed_finish else "",
            differences=_differences(row.gateway, row.feed),
        )
        for row in rows
    ]


def _differences(gateway: Counts, feed: Counts) -> tuple[tuple[str, int | None, int | None, int | None], ...]:
    pairs = (
        (_("Input"), gateway.prompt_tokens, feed.prompt_tokens),
        (_("of it cached"), gateway.cached_tokens, feed.cached_tokens),
        (_("Output"), gateway.completion_tokens, feed.completion_tokens),
        (_("of it reasoning"), gateway.reasoning_tokens, feed.reasoning_tokens),
    )
    return tuple(
        (name, ours, theirs, theirs - ours if ours is not None and theirs is not None else None)
        for name, ours, theirs in pairs
    )


def _evidence_words(evidence: Evidence) -> dict[str, Any]:
    call = evidence.call
    return {
        "hold_state": word_of(call_words.HOLD_STATES, call.hold_state) if call else "",
        "cancel_policy": word_of(call_words.CANCEL_POLICIES, call.cancel_policy) if call else "",
        "attempts": [
            (one, word_of(call_words.OUTCOMES, one.outcome) if one.outcome else _("Running"))
            for one in evidence.attempts
        ],
        "revisions": [
            (
                one,
                word_of(call_words.SOURCES, one.source),
                word_of(call_words.BASES, one.basis),
                word_of(call_words.SURENESSES, one.provenance),
                word_of(CAUSES, one.cause) if one.cause else "",
            )
            for one in evidence.revisions
        ],
        "records": [
            (one, *badge_of(VERDICTS, one.verdict), word_of(FINISHES, one.finish)) for one in evidence.records
        ],
        "windows": [(one, *badge_of(WINDOW_STATES, one.state)) for one in evidence.windows],
    }
