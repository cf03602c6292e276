"""The page of the two witnesses: in all its states, and as the fragment that keeps it fresh."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from devstack.engines.testing import start_engine
from models_catalog.models import FleetState, ServingBackend
from portal.backoffice import views
from portal.backoffice.tests.people import make_operator, sign_in
from quotas.reconciliation.operations import sample_counters
from tenants.scope import role_scope
from tests.factories import disable_distant_backends, make_backend

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture
def sampled() -> Iterator[str]:
    """The code of a backend that has been sampled twice and then went away."""
    disable_distant_backends()
    with start_engine("vllm") as engine:
        backend_id = make_backend(engine="vllm", base_url=engine.url)
        for _ in range(2):
            sample_counters(secrets=settings.SECRET_STORE)
    sample_counters(secrets=settings.SECRET_STORE)
    with role_scope("operator"):
        code = ServingBackend.objects.get(id=backend_id).code
    yield code
    with role_scope("operator"):
        ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)


def section_of(page: str, code: str) -> str:
    (found,) = [part for part in page.split("<section ")[1:] if f">{code}<" in part]
    return found


@pytest.mark.parametrize("window", ["", "hour", "today", "day", "nonsense"])
def test_both_columns_and_the_difference_are_shown(client: Client, sampled: str, window: str) -> None:
    page = client.get(f"/operator/witness?window={window}")
    assert page.status_code == 200
    text = page.content.decode()
    chosen = window if window in views.WINDOWS else "hour"
    assert f'hx-get="/operator/witness?window={chosen}"' in text
    assert re.search(rf'href="/operator/witness\?window={chosen}" aria-current="page"', text)
    section = section_of(text, sampled)
    assert "Backend counted" in section
    assert "Gateway metered" in section
    assert '<span class="badge badge-ok">Agrees</span>' in section
    # It is out of reach now, and says since when and why.
    assert "Not reachable" in section
    assert "ClientConnectorError" in section


def test_the_fragment_is_the_table_alone(client: Client, sampled: str) -> None:
    fragment = client.get("/operator/witness?window=day", headers={"HX-Request": "true"}).content.decode()
    assert fragment.lstrip().startswith('<div id="witness"')
    assert "<html" not in fragment
    assert sampled in fragment
    assert 'hx-trigger="every 5s"' in fragment


def test_a_backend_without_samples_and_no_backend_at_all(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_id = make_backend()
    with role_scope("operator"):
        code = ServingBackend.objects.get(id=backend_id).code
    section = section_of(client.get("/operator/witness").content.decode(), code)
    assert "No counters" in section
    assert "never sampled" in section
    with role_scope("operator"):
        ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)
    monkeypatch.setattr(views, "witness_report", lambda **_: [])
    assert "No backends yet" in client.get("/operator/witness").content.decode()


def test_a_comparison_that_fails_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(views, "witness_report", fail)
    page = client.get("/operator/witness")
    assert page.status_code == 200
    assert 'role="alert"' in page.content.decode()


def test_a_difference_has_a_sign() -> None:
    assert [views.signed(tokens) for tokens in (0, 1234, -5)] == ["0", "+1,234", "−5"]


def test_the_page_answers_reading_only(client: Client) -> None:
    assert client.post("/operator/witness").status_code == 405
