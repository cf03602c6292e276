"""manage.py check_stripe says what is missing, and changes nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from devstack.stripe_standin.testing import Standin, running_standin
from quotas.payments import checking
from quotas.payments.handlers import find_handler
from quotas.payments.tests.stripe_side import configure


def run() -> tuple[str, str]:
    """What it printed, and what it complained of at the end."""
    out = io.StringIO()
    try:
        call_command("check_stripe", stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def books(standin: Standin) -> dict[str, Any]:
    """Everything that happened at Stripe; the time goes on by itself."""
    return {name: rows for name, rows in standin.control.books().items() if name != "now"}


@pytest.fixture
def told(tmp_path: Path, database: None, monkeypatch: pytest.MonkeyPatch):
    """A stand-in that posts its events to where the portal is said to be."""
    monkeypatch.setattr(settings, "PORTAL_URL", "http://127.0.0.1:9")
    with running_standin(tmp_path / "stripe", webhook_url="http://127.0.0.1:9/webhooks/stripe") as standin:
        configure(monkeypatch, standin)
        yield standin


def test_a_whole_set_up_has_no_problem(told: Standin) -> None:
    before = books(told)
    printed, complaint = run()
    assert complaint == "", printed
    assert printed.count("allowed") == len(checking.SCOPES)
    assert "test mode, secret" in printed
    assert books(told) == before


def test_missing_scopes_are_named(told: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    key = told.restricted_key("customer_write", "checkout_session_write", "event_read")
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", key)
    printed, complaint = run()
    assert complaint
    lines = {line[2:].split("  ")[0]: line for line in printed.splitlines()}
    for allowed in ("Customers: write", "Checkout Sessions: write", "Events: read"):
        assert lines[allowed].startswith("✓"), lines[allowed]
    for missing in ("PaymentIntents: write", "Charges and Refunds: write", "Payouts: read"):
        assert lines[missing].startswith("✗"), lines[missing]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("STRIPE_SECRET_KEY", "", "STRIPE_SECRET_KEY is not set"),
        ("STRIPE_SECRET_KEY", "sk_test_wrong", "not reachable"),
        ("STRIPE_API_BASE", "http://127.0.0.1:9", "not reachable"),
        ("STRIPE_WEBHOOK_SECRETS", (), "every event is refused"),
        ("STRIPE_WEBHOOK_SECRETS", ("secret",), "whsec_"),
        ("STRIPE_ACCOUNT", "acct_other", "acct_other"),
        ("PORTAL_URL", "http://127.0.0.1:10", "no enabled endpoint"),
        ("CURRENCIES", ("USD", "XXX"), "XXX"),
        ("TOP_UP_AMOUNTS", ("nothing",), "SLUICE_TOP_UP_AMOUNTS"),
    ],
)
def test_what_is_wrong_is_said(
    standin: Standin, monkeypatch: pytest.MonkeyPatch, name: str, value: object, words: str
) -> None:
    monkeypatch.setattr(settings, name, value)
    printed, complaint = run()
    assert complaint
    assert any(line.startswith("✗") and words in line for line in printed.splitlines()), printed


def test_every_event_that_is_asked_for_is_handled() -> None:
    assert [event for event in checking.NEEDED_EVENTS if find_handler(event) is None] == []
