"""The books of a period: trial balance, roll-forwards, ageing of receivables, and closed months."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from portal.backoffice.books.chosen import PRESETS, Chosen, read_chosen
from portal.backoffice.books.words import ACCOUNT_NAMES, BOOK_NAMES, BOOK_NOTES, step_name
from portal.backoffice.pages import operator_page
from portal.backoffice.payments.words import word_of
from portal.kit.clock import utc_now
from portal.pages.answers import show
from quotas.books.closing import ClosedRow, differences, list_closed, next_month
from quotas.books.journal import Side
from quotas.books.queries import PeriodBooks, RollForward, TrialBalance, ageing, period_books
from quotas.models import AccountKind


@operator_page()
def books(request: HttpRequest) -> HttpResponse:
    """The page. In the address: period (from, to), currency. A period that takes too long to sum says so."""
    now = utc_now()
    context: dict[str, Any] = {"section": "books", "presets": PRESETS}
    try:
        chosen = read_chosen(request.GET, now)
        closed = list_closed()
        context |= {"chosen": chosen, "closed": closed, "next": next_month(now=now)}
        context |= _figures(chosen, now) | _agreement(chosen, closed)
    except OperationalError:
        context["has_failed"] = True
    return show(request, "backoffice/books/page.html", context)


def _figures(chosen: Chosen, now: datetime) -> dict[str, Any]:
    period = chosen.period
    found: PeriodBooks = period_books(currency=chosen.currency, since=period.from_at, until=period.to_at)
    at = min(period.to_at, now)
    debts = ageing(currency=chosen.currency, at=at)
    owed = f"{reverse('backoffice:books-entries')}?currency={chosen.currency}&account=RECEIVABLE"
    return {
        "trial": _trial(found.trial_balance, chosen),
        "trial_totals": found.trial_balance.totals,
        "is_balanced": found.trial_balance.is_balanced,
        "rolls": [_roll(roll, chosen) for roll in found.roll_forwards.values()],
        "debts": debts,
        "debts_at": at,
        "owed_url": f"{owed}&until={period.to_at:%Y-%m-%d}",
    }


def _trial(trial: TrialBalance, chosen: Chosen) -> list[dict[str, Any]]:
    """Each account with the addresses behind its four figures."""
    return [
        {
            "line": line,
            "name": word_of(ACCOUNT_NAMES, line.account),
            "opening_url": chosen.entries([line.account], is_opening=True),
            "debits_url": chosen.entries([line.account], side=Side.DEBIT),
            "credits_url": chosen.entries([line.account], side=Side.CREDIT),
            "closing_url": chosen.entries([line.account], is_closing=True),
        }
        for line in trial.lines
    ]


def _roll(roll: RollForward, chosen: Chosen) -> dict[str, Any]:
    return {
        "roll": roll,
        "name": BOOK_NAMES[roll.book],
        "note": BOOK_NOTES[roll.book],
        "opening_url": chosen.entries(roll.accounts, is_opening=True),
        "closing_url": chosen.entries(roll.accounts, is_closing=True),
        "lines": [
            (line, step_name(roll.book, line.step), chosen.entries(roll.accounts, line.kinds))
            for line in roll.lines
        ],
    }


def _agreement(chosen: Chosen, closed: list[ClosedRow]) -> dict[str, Any]:
    """Of a period that is one closed month: how it was closed, and where the ledger says otherwise today."""
    period = chosen.period
    for row in closed:
        if (row.month.since, row.month.until) == (period.from_at, period.to_at):
            found = differences(month=row.month.day)
            names = [(word_of(ACCOUNT_NAMES, AccountKind(one.account)), one) for one in found]
            return {"closed_as": row, "differences": names}
    return {}
