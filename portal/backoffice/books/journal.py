"""The entries behind a figure, and the journal as a file."""

from __future__ import annotations

from typing import Any, Final

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse

from portal.backoffice.books.chosen import cursor_text, read_cursor, read_entries
from portal.backoffice.books.words import ACCOUNT_NAMES, KIND_NAMES
from portal.backoffice.pages import operator_page
from portal.backoffice.payments.shown import transfer_url
from portal.backoffice.payments.words import choices, word_of
from portal.kit.clock import utc_now
from portal.pages.answers import show
from portal.pages.downloads import csv_download
from quotas.books.journal import EntryPage, iter_journal_csv, list_entries

PAGE_ROWS: Final = 100


@operator_page()
def entries(request: HttpRequest) -> HttpResponse:
    """A list. In the address: currency, since, until, account, kind (each several times), side, organization,
    after."""
    query = request.GET
    filters = read_entries(query, utc_now())
    has_failed = False
    try:
        page = list_entries(filters=filters, after=read_cursor(query.get("after", "")), limit=PAGE_ROWS)
    except OperationalError:
        page, has_failed = EntryPage((), None), True
    context: dict[str, Any] = {
        "section": "books",
        "filters": filters,
        "rows": [
            (
                row,
                word_of(KIND_NAMES, row.kind),
                word_of(ACCOUNT_NAMES, row.account),
                transfer_url(row.transfer_id),
            )
            for row in page.rows
        ],
        "next": cursor_text(page.next),
        "is_first": not query.get("after"),
        "has_failed": has_failed,
        "accounts": choices(ACCOUNT_NAMES),
        "kinds": choices(KIND_NAMES),
        "account_names": [word_of(ACCOUNT_NAMES, one) for one in filters.accounts],
        "kind_names": [word_of(KIND_NAMES, one) for one in filters.kinds],
        "organization": query.get("organization", "")[:64],
        "download_url": f"{reverse('backoffice:books-journal')}?{query.urlencode()}",
    }
    return show(request, "backoffice/books/entries.html", context)


@operator_page()
def journal_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The same as a file, all of it."""
    filters = read_entries(request.GET, utc_now())
    since = f"{filters.since:%Y-%m-%d}" if filters.since else "beginning"
    name = f"journal-{filters.currency}-{since}-{filters.until:%Y-%m-%d}.csv"
    return csv_download(request, iter_journal_csv(filters=filters), name)
