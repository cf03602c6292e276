"""The start page: what it promises is measured, or said to be missing; and it stays up without Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client

from devstack.testing import Services
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.storefront import figures
from portal.storefront.figures import Figures, service_figures
from portal.storefront.tests.shops import list_model, page_of, text_in
from quotas.metering.queries import ModelSpeed
from quotas.reconciliation.witness import BackendWitness, Comparison, Witness
from tenants.models import Role
from tests.factories import make_tenant, unique_name
from tests.people import make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    cache.delete_many([figures.KEY, figures.LOCK])
    figures._remembered.clear()
    yield
    cache.delete_many([figures.KEY, figures.LOCK])


def show(shown: Figures) -> str:
    """The start page with these numbers kept."""
    cache.set(figures.KEY, figures._write(shown), 60)
    return text_in(page_of(Client(), "/"))


def test_prices_and_a_call_of_a_model_that_is_on_offer() -> None:
    list_model(unique_name("shop"), "m")
    page = page_of(Client(), "/")
    assert "meter you can trust" in page
    assert 'data-testid="landing-model"' in page
    assert f"{settings.API_BASE}/chat/completions" in page
    assert "&quot;model&quot;" in page
    assert '<meta name="description" content="Hosted language models' in page
    assert "Sign up" in page


def test_members_are_shown_the_console() -> None:
    page = text_in(page_of(signed_in(make_member(make_tenant(), Role.VIEWER)), "/"))
    assert "Console" in page
    assert "Sign in" not in page


def test_numbers_are_shown_as_measured_and_never_rounded_up() -> None:
    text = show(Figures(utc_now(), 1_234, 310, 999_999, 1_000_000))
    assert "1,234 settled since midnight UTC" in text
    assert "310 ms" in text
    assert "99.99 %" in text
    assert "1,000,000 tokens in 24 hours" in text
    assert "100 %" in show(Figures(utc_now(), 0, 310, 7, 7))


def test_what_is_missing_is_said() -> None:
    text = show(Figures(utc_now(), 0))
    assert "Requests today 0" in text
    assert text.count("Not enough data yet") >= 2
    assert "Not measured right now" in show(Figures(utc_now()))


def test_numbers_are_measured_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []

    def measure(*, now: datetime) -> Figures:
        asked.append(now)
        return Figures(now, len(asked))

    monkeypatch.setattr(figures, "measure", measure)
    assert [service_figures(now=NOW + timedelta(seconds=s)).requests_today for s in (0, 1, 59)] == [1, 1, 1]
    assert service_figures(now=NOW + timedelta(seconds=60)).requests_today == 2
    # Another process measures: what is kept is shown meanwhile.
    assert service_figures(now=NOW + timedelta(seconds=125)).requests_today == 2
    cache.delete(figures.LOCK)
    assert service_figures(now=NOW + timedelta(seconds=125)).requests_today == 3
    # What another version of the program has kept is not believed.
    cache.set(figures.KEY, '{"speeds": {}, "colour": "blue"}')
    assert service_figures(now=NOW + timedelta(seconds=126)).requests_today == 4
    assert len(asked) == 4


def test_numbers_are_kept_as_they_were_measured() -> None:
    speed = ModelSpeed(uuid7(), "a/b", 21, 300, 41.5)
    kept = Figures(NOW, 1, 2, 3, 4, {"a/b": speed, "c/d": ModelSpeed(uuid7(), "c/d", 3, None, None)})
    assert figures._read(figures._write(kept)) == kept


def test_the_database_is_asked_for_real() -> None:
    found = figures.measure(now=utc_now())
    assert found.requests_today is not None
    assert found.confirmed_hundredths is None or 0 <= found.confirmed_hundredths <= 10_000


def test_a_number_that_takes_too_long_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(figures, "model_speeds", fail)
    found = figures.measure(now=utc_now())
    assert found.speeds == {}
    assert found.requests_today is not None


def test_pages_stay_up_without_valkey(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []
    measure = figures.measure

    def counting(*, now: datetime) -> Figures:
        asked.append(now)
        return measure(now=now)

    monkeypatch.setattr(figures, "measure", counting)
    slug = list_model(unique_name("shop"), "m")
    services.valkey.stop()
    try:
        for path in ("/", "/models", f"/models/{slug}"):
            page_of(Client(), path)
        # The process remembers, so that not every visitor has the numbers measured.
        assert len(asked) == 1
    finally:
        services.valkey.start()
    assert service_figures(now=utc_now()).requests_today is not None


def witnessed(*sides: tuple[int, int], attempts: int = 50, unknown: int = 0) -> BackendWitness:
    """A backend: (counted, metered) prompt and completion tokens of one life."""
    prompt, completion = (Comparison(counted, metered, 0) for counted, metered in sides)
    life = Witness(1, NOW, NOW + timedelta(hours=1), attempts, 0, 0, prompt, completion, ())
    return BackendWitness(
        UUID(int=1), "b", "vllm", "ACTIVE", NOW, None, "", False, (life,), int(unknown > 0), unknown
    )


def test_confirmed_is_what_both_counted_of_what_either_did() -> None:
    assert figures._confirmed([witnessed((100, 100), (50, 50))]) == (150, 150)
    assert figures._confirmed([witnessed((100, 90), (50, 60))]) == (140, 160)
    assert figures._confirmed([witnessed((100, 100), (50, 50), unknown=30)]) == (150, 180)
    assert figures._confirmed([witnessed((100, 100), (50, 50), attempts=19)]) is None
    assert figures._confirmed([]) is None


def test_robots_are_told_what_is_public() -> None:
    response = Client().get("/robots.txt")
    assert response["Content-Type"].startswith("text/plain")
    assert "Disallow: /o/" in response.content.decode()
