"""The page of the floor as the server writes it: a snapshot, and what it says when something is not known."""

from __future__ import annotations

import re

import pytest
from django.db import OperationalError
from django.test import Client, override_settings

from portal.backoffice.floor import shown as shown_pools
from portal.backoffice.floor.feed import READER
from portal.backoffice.floor.tests.halls import make_hall
from portal.backoffice.tests.people import make_operator, signed_in_operator
from portal.kit.clock import utc_now
from quotas.business.floor import FloorBooks

ADDRESS = "/operator/floor"


@pytest.fixture
def operator(database: None) -> Client:
    return signed_in_operator(make_operator())


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an earlier test has read."""
    monkeypatch.setattr(READER, "_books", None)


def shown(html: str, testid: str) -> bool:
    """Whether this part of the page is there and not hidden."""
    (tag,) = re.findall(rf'<[^>]*data-testid="{testid}"[^>]*>', html)
    return not re.search(r"\shidden\b", tag)


def row(html: str, pool_id: str) -> str:
    (found,) = re.findall(rf'<tr data-pool="{pool_id}".*?</tr>', html, re.DOTALL)
    return str(found)


def test_a_snapshot_needs_no_script(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests have left pools behind, and those without a cost come last.
    monkeypatch.setattr(shown_pools, "MAX_POOLS", 100_000)
    hall, bare = make_hall(), make_hall(is_complete=False)
    html = operator.get(ADDRESS).content.decode()
    complete = row(html, hall.pool_id)
    assert 'data-testid="floor-now">0.0<' in complete
    assert ">400<" in complete
    assert f'value="{hall.cost_nanos_per_hour}"' in complete
    assert f'value="-{hall.cost_nanos_per_hour}"' in complete
    assert "Nothing earned in 24 h" in complete
    assert re.search(r'id="floor-at" datetime="[0-9T:.-]+Z"', html)
    missing = row(html, bare.pool_id)
    assert re.search(rf'data-note="no_capacity"><a data-link-only href="[^"]*{bare.pool_id}"', missing)
    assert re.search(rf'data-note="no_cost"><a data-link-only href="[^"]*{bare.pool_id}"', missing)
    assert 'data-testid="floor-now">–<' in missing
    for notice in ("floor-no-flow", "floor-no-books", "floor-old-books", "floor-empty"):
        assert not shown(html, notice), notice


def test_without_valkey_no_zero_is_shown(operator: Client) -> None:
    hall = make_hall()
    with override_settings(VALKEY_URL="redis://127.0.0.1:1/0"):
        html = operator.get(ADDRESS).content.decode()
    assert shown(html, "floor-no-flow")
    assert 'data-testid="floor-now">–<' in row(html, hall.pool_id)
    assert 'data-testid="floor-calls">–<' in row(html, hall.pool_id)
    assert 'data-testid="total-calls">–<' in html
    assert f'value="{hall.cost_nanos_per_hour}"' in row(html, hall.pool_id)


def test_without_the_database_the_page_says_so(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*, now: object) -> FloorBooks:
        raise OperationalError("away")

    monkeypatch.setattr(READER, "read", fail)
    html = operator.get(ADDRESS).content.decode()
    assert shown(html, "floor-no-books")
    assert not shown(html, "floor-empty")
    assert 'data-testid="total-burned">–' in html.replace("\n", "")


def test_without_pools_it_leads_to_the_fleet(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(READER, "read", lambda *, now: FloorBooks(utc_now(), ()))
    html = operator.get(ADDRESS).content.decode()
    assert shown(html, "floor-empty")
    assert not shown(html, "floor-no-books")
