"""What the addresses of the books say. What cannot be read counts as not given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import QueryDict
from django.urls import reverse
from django.utils.translation import gettext_lazy

from portal.backoffice.payments.filters import choice, day_of, plain
from portal.pages.access import optional_id
from portal.pages.periods import Period, read_period
from quotas.books.balances import book_currencies
from quotas.books.journal import EntryCursor, EntryFilter, Side
from quotas.models import AccountKind, TransferKind

PRESETS: Final = {
    "month": gettext_lazy("This month"),
    "last-month": gettext_lazy("Last month"),
    "custom": gettext_lazy("Days from … to …"),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """currencies: what there is to choose from."""

    period: Period
    currency: str
    currencies: tuple[str, ...]

    def entries(
        self,
        accounts: Iterable[AccountKind] = (),
        kinds: Iterable[TransferKind] = (),
        *,
        side: Side | None = None,
        is_opening: bool = False,
        is_closing: bool = False,
    ) -> str:
        """Where the transfers of a figure are: of the period, or all before it or before its end."""
        until = self.period.from_at if is_opening else self.period.to_at
        values = [("currency", self.currency)]
        if not (is_opening or is_closing):
            values.append(("since", f"{self.period.from_at:%Y-%m-%d}"))
        values.append(("until", f"{until:%Y-%m-%d}"))
        values += [("account", account.value) for account in accounts]
        values += [("kind", kind.value) for kind in kinds]
        if side:
            values.append(("side", side.value))
        return f"{reverse('backoffice:books-entries')}?{urlencode(values)}"

    @property
    def download(self) -> str:
        """The journal of the period."""
        query = self.entries().partition("?")[2]
        return f"{reverse('backoffice:books-journal')}?{query}"


def read_chosen(query: QueryDict, now: datetime) -> Chosen:
    period = read_period(query, now=now, default="month", presets=PRESETS)
    currencies = _currencies()
    return Chosen(period, _currency(query, currencies), currencies)


def read_entries(query: QueryDict, now: datetime) -> EntryFilter:
    """since and until: days, the second not included; without them from the beginning, to this moment."""
    since, until = day_of(query.get("since", "")), day_of(query.get("until", ""))
    accounts = (choice(AccountKind, text) for text in query.getlist("account"))
    kinds = (choice(TransferKind, text) for text in query.getlist("kind"))
    return EntryFilter(
        currency=_currency(query, _currencies()),
        until=_midnight(until) if until else now + timedelta(days=1),
        since=_midnight(since) if since else None,
        accounts=tuple(one for one in accounts if one is not None),
        kinds=tuple(one for one in kinds if one is not None),
        side=choice(Side, query.get("side", "")),
        tenant_id=optional_id("organization", query.get("organization", "")),
    )


def read_cursor(text: str) -> EntryCursor | None:
    """As cursor_text spells it."""
    parts = plain(text).split("~")
    try:
        at, transfer, account = datetime.fromisoformat(parts[0]), UUID(parts[1]), UUID(parts[2])
    except (ValueError, IndexError):
        return None
    return EntryCursor(at, transfer, account) if at.tzinfo is not None else None


def cursor_text(cursor: EntryCursor | None) -> str:
    if cursor is None:
        return ""
    return f"{cursor.posted_at.isoformat()}~{cursor.transfer_id}~{cursor.account_id}"


def _currencies() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*settings.CURRENCIES, *book_currencies())))


def _currency(query: QueryDict, currencies: tuple[str, ...]) -> str:
    wanted = query.get("currency", "")
    return wanted if wanted in currencies else currencies[0]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
