"""Billing: what the balance is made of, adding credit, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import override_settings

from portal.console.billing import balance, words
from portal.console.tests.people import HTMX, Stage, open_stage, text_of
from portal.console.tests.test_money_pages import values
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import parse_amount
from quotas.ledger import operations as ledger
from quotas.models import TopUpSource, TopUpState
from quotas.payments import checkout
from quotas.payments.checkout import StartedTopUp
from quotas.payments.policy import PaymentPolicy
from tenants.models import Role, Tenant, TenantState
from tenants.scope import role_scope
from tests.factories import TenantFixture, add_granted, issue_key
from tests.factories_payments import make_dispute, make_refund, make_top_up

PAY_URL = "https://checkout.stripe.example/c/pay/cs_test_1"
# Nobody listens there.
NOWHERE = {"STRIPE_SECRET_KEY": "sk_test_nobody", "STRIPE_API_BASE": "http://127.0.0.1:9"}


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


@pytest.fixture
def with_stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    offer = PaymentPolicy(offered={"": tuple(parse_amount(text) for text in ("10", "20", "50"))})
    monkeypatch.setattr(balance, "payment_policy", lambda: offer)
    with override_settings(**NOWHERE):
        yield


def fixture_of(stage: Stage) -> TenantFixture:
    key, digest = issue_key(stage.tenant_id)
    return TenantFixture(stage.tenant_id, stage.public_id, "USD", key, digest)


def start_instead(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[dict[str, Any]]:
    """Nobody is asked: what start_top_up was called with."""
    calls: list[dict[str, Any]] = []

    def start(**arguments: Any) -> StartedTopUp:
        calls.append(arguments)
        if error is not None:
            raise error
        return StartedTopUp(uuid7(), PAY_URL)

    monkeypatch.setattr(checkout, "start_top_up", start)
    return calls


def test_every_top_up_has_words() -> None:
    assert set(words.STATES) == set(words.LAMPS) == set(TopUpState)
    assert set(words.SOURCES) == set(TopUpSource)


def test_a_new_balance_is_empty_and_says_what_comes(stage: Stage, with_stripe: None) -> None:
    html = text_of(stage.get("billing"))
    for part in ("paid", "granted", "pending", "available"):
        assert values(html, f"wallet-{part}") == [0]
    assert "wallet-owed" not in html
    assert 'data-testid="top-ups-empty"' in html
    assert 'data-testid="add-credit-form"' in html
    assert re.findall(r'type="radio"[^>]*value="([^"]+)"', html) == ["10", "20", "50", "other"]
    assert re.findall(r'value="([^"]+)"[^>]*checked', html) == ["20"]
    assert 'data-testid="invoices-empty"' in text_of(stage.get("invoices"))


def test_credit_that_expires_says_when(stage: Stage) -> None:
    with role_scope("operator"):
        ledger.grant_credit(
            tenant_id=stage.tenant_id,
            amount_nanos=2 * 10**9,
            key=str(uuid7()),
            reason="",
            expires_at=datetime(2999, 12, 31, tzinfo=UTC),
        )
    for page in ("billing", "statement"):
        html = text_of(stage.get(page))
        assert values(html, "wallet-expiring") == [2 * 10**9]
        assert 'datetime="2999-12-31T00:00:00.000Z"' in html
        assert "does not expire" not in html


def test_without_stripe_the_page_says_who_adds_credit(stage: Stage) -> None:
    html = text_of(stage.get("billing"))
    assert f'<code id="no-credit-id">{stage.public_id}</code>' in html
    assert "add-credit-form" not in html
    assert "payment-methods-form" not in html
    answer = stage.post("add-credit", data={"amount": "other", "other": "20"})
    assert answer.status_code == 422
    assert stage.post("payment-methods").status_code == 422


def test_paying_leads_on_to_the_payment_page(
    stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = start_instead(monkeypatch)
    answer = stage.post("add-credit", data={"amount": "20", "keeps_method": "on"})
    assert answer.status_code == 200
    assert f'<meta http-equiv="refresh" content="0; url={PAY_URL}">' in text_of(answer)
    assert "no-store" in answer["Cache-Control"]
    (call,) = calls
    assert (call["tenant_id"], call["user_id"]) == (stage.tenant_id, stage.owner.id)
    assert call["amount_nanos"] == 20 * 10**9
    assert call["keeps_method"] is True
    landing = stage.url("top-up", "TUP").replace("TUP", checkout.TOP_UP_PLACE)
    assert call["success_url"] == f"http://testserver{landing}"
    assert call["cancel_url"] == f"http://testserver{landing}?left=1"
    by_htmx = stage.post("add-credit", data={"amount": "20"}, htmx=True)
    assert by_htmx["HX-Redirect"] == PAY_URL


@pytest.mark.parametrize(
    ("text", "wanted"), [("25", "25"), (" 12.50 ", "12.5"), ("1,000", "1000"), ("5", "5"), ("10000", "10000")]
)
def test_a_free_amount(
    text: str, wanted: str, stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = start_instead(monkeypatch)
    stage.post("add-credit", data={"amount": "other", "other": text})
    assert [call["amount_nanos"] for call in calls] == [parse_amount(wanted)]


@pytest.mark.parametrize("text", ["", "x", "-20", "0", "4.99", "10000.01", "20.001", "1e3", "9" * 25, "２０"])
def test_what_cannot_be_paid_is_said_beside_the_field(
    text: str, stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = start_instead(monkeypatch)
    answer = stage.post("add-credit", data={"amount": "other", "other": text, "keeps_method": "on"})
    html = text_of(answer)
    assert answer.status_code == 422
    assert not calls
    assert 'id="add_credit_other_error"' in html
    assert f'value="{text}"' in html or not text
    # Nothing that was filled in is lost.
    assert re.search(r'value="other"[^>]*checked', html)
    assert re.search(r'name="keeps_method"[^>]*checked', html)


def test_an_amount_that_is_no_longer_offered(
    stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_instead(monkeypatch, checkout.AmountNotOffered())
    for amount in ("20", "21", ""):
        answer = stage.post("add-credit", data={"amount": amount})
        assert answer.status_code == 422
        assert 'id="add_credit_amount_error"' in text_of(answer)


@pytest.mark.parametrize("error", [checkout.TooManyOpenTopUps(), checkout.OrganizationClosed()])
def test_what_stands_in_the_way_is_said(
    error: Exception, stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_instead(monkeypatch, error)
    answer = stage.post("add-credit", data={"amount": "50"})
    assert answer.status_code == 422
    assert 'role="alert"' in text_of(answer)
    assert re.search(r'value="50"[^>]*checked', text_of(answer))


def test_stripe_that_cannot_be_reached_keeps_the_amount(stage: Stage, with_stripe: None) -> None:
    """The real thing: nobody listens where Stripe should be."""
    answer = stage.post("add-credit", data={"amount": "50"})
    assert answer.status_code == 422
    assert "could not be reached" in text_of(answer)
    assert re.search(r'value="50"[^>]*checked', text_of(answer))
    portal = stage.post("payment-methods")
    assert portal.status_code == 422
    assert "could not be reached" in text_of(portal)


def test_top_ups_are_listed_with_their_papers(stage: Stage, with_stripe: None) -> None:
    fixture = fixture_of(stage)
    paid = make_top_up(
        fixture, tax="3.80", receipt_url="https://pay.example/r/1", invoice_url="https://pay.example/i/1"
    )
    make_refund(paid, amount="5.00", tax="0.95")
    make_top_up(fixture, amount="7.00", state=TopUpState.OPEN, pay_url=PAY_URL)
    make_top_up(fixture, amount="8.00", state=TopUpState.FAILED, failure_code="card_declined")
    html = text_of(stage.get("billing"))
    assert re.findall(r'data-testid="top-up-row"[^>]*data-state="(\w+)"', html) == ["FAILED", "OPEN", "PAID"]
    assert "The bank declined the card." in html
    assert f'href="{PAY_URL}"' in html
    assert 'value="5000000000"' in html
    papers = text_of(stage.get("invoices"))
    assert papers.count('data-testid="top-up-row"') == 1
    assert 'href="https://pay.example/r/1"' in papers
    assert 'href="https://pay.example/i/1"' in papers
    assert 'value="23800000000"' in papers


def test_a_long_list_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "PAGE_ROWS", 2)
    fixture = fixture_of(stage)
    made = [public_id(PREFIXES["top_up"], make_top_up(fixture)) for _ in range(3)]
    html = text_of(stage.get("billing"))
    older = re.search(r'rel="next" href="[^"]*before=(tup_[0-9a-z]+)', html)
    assert older
    html += text_of(stage.get("billing", query={"before": older[1]}))
    assert sorted(re.findall(r'data-top-up="(tup_[0-9a-z]+)"', html)) == sorted(made)
    assert stage.get("billing", query={"before": "tup_x"}).status_code == 404


def test_who_may_not_pay_sees_no_form(stage: Stage, with_stripe: None) -> None:
    assert "add-credit-form" in text_of(stage.as_role(Role.BILLING).get("billing"))
    developer = stage.as_role(Role.DEVELOPER)
    assert developer.get("billing").status_code == 403
    assert developer.post("add-credit", data={"amount": "20"}).status_code == 403


def owe(stage: Stage) -> None:
    """A payment of 20.00 was taken back, and its credit is spent: 15.00 are due."""
    fixture = fixture_of(stage)
    top_up_id = make_top_up(fixture)
    make_refund(top_up_id, amount="15.00")
    make_dispute(top_up_id)


def test_what_is_owed_is_said_and_can_be_paid(stage: Stage, with_stripe: None) -> None:
    owe(stage)
    html = text_of(stage.get("billing"))
    assert values(html, "wallet-owed") == [15 * 10**9]
    assert 'data-testid="owed"' in html
    assert 'data-testid="owed"' in text_of(stage.get("overview"))
    assert 'data-testid="owed"' not in text_of(stage.as_role(Role.VIEWER).get("overview"))


def test_an_organization_that_is_suspended_for_a_debt_can_pay(
    stage: Stage, with_stripe: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(stage)
    with role_scope("operator"):
        Tenant.objects.filter(id=stage.tenant_id).update(
            state=TenantState.SUSPENDED, suspension_cause="RECEIVABLE"
        )
    for page in ("billing", "overview", "statement"):
        assert 'data-testid="suspended-for-debt"' in text_of(stage.get(page))
    assert "#add-credit" in text_of(stage.get("overview"))
    calls = start_instead(monkeypatch)
    assert stage.post("add-credit", data={"amount": "20"}).status_code == 200
    assert len(calls) == 1


def landing(stage: Stage, top_up_id: Any, **query: str) -> str:
    return text_of(stage.get("top-up", public_id(PREFIXES["top_up"], top_up_id), query=query))


def test_the_landing_page_says_what_became_of_it(stage: Stage) -> None:
    fixture = fixture_of(stage)
    add_granted(stage.tenant_id, 10**9)
    paid = landing(stage, make_top_up(fixture, tax="1.00"))
    assert 'data-state="PAID"' in paid
    assert values(paid, "landing-balance") == [21 * 10**9]
    assert "hx-get" not in paid
    failed = landing(stage, make_top_up(fixture, state=TopUpState.FAILED, failure_code="insufficient_funds"))
    assert "There was not enough money" in failed
    assert 'data-testid="landing-again"' in failed
    expired = landing(stage, make_top_up(fixture, state=TopUpState.EXPIRED))
    assert 'data-testid="landing-again"' in expired


@pytest.mark.parametrize("state", [TopUpState.FAILED, TopUpState.EXPIRED])
def test_a_payment_that_is_not_what_was_asked_for_is_not_called_free(stage: Stage, state: TopUpState) -> None:
    """It may well have been charged: nobody is told that it was not, nor to pay once more."""
    top_up_id = make_top_up(fixture_of(stage), state=state, failure_code="mismatch_amount")
    html = landing(stage, top_up_id)
    assert "is not what was asked for" in html
    assert "reserved" not in html
    assert "Nothing was charged" not in html
    assert 'data-testid="landing-again"' not in html
    assert "is not what was asked for" in text_of(stage.get("billing"))


def test_a_closed_organization_is_not_told_to_wait(stage: Stage) -> None:
    with role_scope("operator"):
        Tenant.objects.filter(id=stage.tenant_id).update(state=TenantState.CLOSED)
    html = text_of(stage.get("billing"))
    assert 'data-testid="closed"' in html
    assert 'data-testid="suspended"' not in html


def test_what_is_open_is_asked_for_again_until_it_is_enough(stage: Stage) -> None:
    top_up_id = make_top_up(fixture_of(stage), state=TopUpState.PROCESSING)
    public = public_id(PREFIXES["top_up"], top_up_id)
    assert "?polled=1" in landing(stage, top_up_id)
    for asked, again in (("1", "?polled=2"), ("89", "?polled=90")):
        fragment = text_of(stage.get("top-up-state", public, query={"polled": asked}, headers=HTMX))
        assert again in fragment
        # The balance in the top bar comes with it.
        assert 'hx-swap-oob="true"' in fragment
        assert "<html" not in fragment
    for asked in ("90", "999", "x", "-1", "", "٣"):
        fragment = text_of(stage.get("top-up-state", public, query={"polled": asked}, headers=HTMX))
        assert "hx-get" not in fragment
        assert "added by itself" in fragment


def test_whoever_leaves_the_payment_page_can_go_on(stage: Stage) -> None:
    top_up_id = make_top_up(fixture_of(stage), state=TopUpState.OPEN, pay_url=PAY_URL)
    html = landing(stage, top_up_id, left="1")
    assert 'data-testid="landing-left"' in html
    assert f'href="{PAY_URL}"' in html
    assert "hx-get" not in html
    # What is paid is paid, whatever the address says.
    paid = make_top_up(fixture_of(stage))
    assert "landing-left" not in landing(stage, paid, left="1")


def test_top_ups_of_others_do_not_exist(stage: Stage) -> None:
    theirs = public_id(PREFIXES["top_up"], make_top_up(fixture_of(open_stage())))
    for name in ("top-up", "top-up-state"):
        assert stage.get(name, theirs).status_code == 404
        assert stage.get(name, "tup_nonsense").status_code == 404
    assert stage.post("top-up-cancel", theirs).status_code == 404


def test_giving_up_leads_back_to_the_page_that_says_so(stage: Stage) -> None:
    public = public_id(PREFIXES["top_up"], make_top_up(fixture_of(stage), state=TopUpState.OPEN))
    answer = stage.post("top-up-cancel", public)
    assert (answer.status_code, answer["Location"]) == (302, stage.url("top-up", public))
