"""Operators' pages of the books: figures that open their transfers, the journal, and closing a month."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client

from portal.backoffice.tests.people import make_operator, sign_in
from quotas.books.tests.past import FIRST, closed_for_the_test, move_to
from quotas.models import AccountKind, TransferKind
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant

pytestmark = pytest.mark.usefixtures("database")
HERE = "/operator/books/"
OF_FIRST = {"period": "custom", "from": "2001-01-01", "to": "2001-01-31", "currency": "USD"}


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture
def old(database: None) -> Iterator[TenantFixture]:
    with closed_for_the_test():
        tenant = make_tenant(granted="1.00", paid="5.00")
        move_to(tenant.id, FIRST.since + timedelta(days=3))
        yield tenant


def test_pages_bear_what_addresses_may_say(client: Client) -> None:
    nonsense = dict.fromkeys(
        ("period", "from", "to", "currency", "since", "until", "account", "kind", "side", "after"), "\0~x'"
    )
    for address in ("", "entries/", "journal.csv"):
        for query in ({}, nonsense, {"until": "2001-01-01"}):
            answer = client.get(HERE + address, query)
            assert answer.status_code == 200, (address, query)
            assert answer.getvalue()


def test_every_figure_opens_its_transfers(client: Client, old: TenantFixture) -> None:
    page = client.get(HERE, OF_FIRST)
    found = re.findall(
        r'<a href="(/operator/books/entries/[^"]+)"><data class="money" value="(-?\d+)"',
        page.content.decode(),
    )
    assert len(found) > 4 * len(AccountKind)
    assert page.context["is_balanced"]
    for address, value in found:
        entries = client.get(unescape(address))
        total = sum(row.amount_nanos for row, *_words in entries.context["rows"])
        if not entries.context["next"]:
            assert abs(total) == abs(int(value)), address


def test_the_journal_is_a_file(client: Client, old: TenantFixture) -> None:
    address = client.get(HERE, OF_FIRST).context["chosen"].download
    answer = client.get(address)
    assert answer["Content-Type"].startswith("text/csv")
    assert 'filename="journal-USD-2001-01-01-2001-02-01.csv"' in answer["Content-Disposition"]
    lines = answer.getvalue().decode().splitlines()
    assert lines[0].lstrip("\ufeff").startswith("posted_at,transfer,kind,organization,account,amount")
    assert [line for line in lines if old.public_id in line and f",{TransferKind.TOP_UP}," in line]


def test_a_month_is_closed_with_a_reason(client: Client, old: TenantFixture) -> None:
    assert b'data-testid="close-month"' in client.get(HERE).content
    assert b"2001-01" in client.get(f"{HERE}close").content
    assert client.post(f"{HERE}close", {"month": "2001-01-01", "reason": ""}).status_code == 422
    assert client.post(f"{HERE}close", {"month": "2001-02-01", "reason": "month end"}).status_code == 422
    assert not rows_of("quotas_closedmonth")
    assert client.post(f"{HERE}close", {"month": "2001-01-01", "reason": "month end"}).status_code == 302
    (month,) = rows_of("quotas_closedmonth")
    assert (month["month"], month["reason"]) == (FIRST.day, "month end")
    page = client.get(HERE, OF_FIRST)
    assert b'data-testid="books-agree"' in page.content
    assert b'data-month="2001-01"' in page.content
    assert page.context["differences"] == []
