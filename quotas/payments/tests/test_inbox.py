"""The inbox: who may put something in, and that whatever is in it is applied once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import EventSource, EventState, StripeEvent, TopUpState
from quotas.payments import handlers, inbox, polling
from quotas.payments.inbox import EventRefused
from quotas.payments.tests.stripe_side import (
    begin,
    credits_of,
    event_about,
    session_of,
    signed,
    stripe_tables,
    top_up_of,
)
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import make_tenant


def receive(event: dict[str, Any], secret: str, **options: Any) -> inbox.Received:
    body, signature = signed(event, secret, **options)
    with role_scope("operator"):
        return inbox.receive_event(body=body, signature=signature, now=utc_now())


def event_row(event_id: str) -> StripeEvent:
    with role_scope("operator"):
        return StripeEvent.objects.get(id=event_id)


def paid_session(standin: Standin) -> tuple[Any, str]:
    """A tenant whose top-up is paid at Stripe and not yet here, and its session."""
    tenant = make_tenant(granted=None)
    session = session_of(begin(tenant))
    standin.control.complete_session(session)
    return tenant, session


def test_an_event_is_stored_once_and_credits_once(standin: Standin) -> None:
    tenant, session = paid_session(standin)
    event = event_about(session)
    secret = standin.webhook_secret
    assert [receive(event, secret).is_new for _ in range(3)] == [True, False, False]
    assert inbox.process_event(event_id=event["id"], now=utc_now()) == EventState.PROCESSED
    assert inbox.process_event(event_id=event["id"], now=utc_now()) is None
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    row = event_row(event["id"])
    assert (row.state, row.attempts, row.source) == (EventState.PROCESSED, 1, EventSource.WEBHOOK)


def test_an_event_is_only_a_hint(standin: Standin) -> None:
    """It says that the session is paid; Stripe does not."""
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    event = event_about(session_of(top_up))
    event["data"]["object"] |= {"payment_status": "paid", "status": "complete", "amount_total": 2000}
    receive(event, standin.webhook_secret)
    assert inbox.process_event(event_id=event["id"], now=utc_now()) == EventState.PROCESSED
    assert money_of(tenant.id).paid == 0
    assert top_up_of(top_up.id).state == TopUpState.OPEN


def test_two_secrets_while_they_rotate(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_WEBHOOK_SECRETS", ("whsec_new", standin.webhook_secret))
    for secret in settings.STRIPE_WEBHOOK_SECRETS:
        assert receive(event_about("cs_test_nothing"), secret).is_new
    with pytest.raises(EventRefused):
        receive(event_about("cs_test_nothing"), "whsec_older")


Forgery = Callable[[dict[str, Any], str], tuple[bytes, str]]
FORGERIES: dict[str, Forgery] = {
    "unsigned": lambda event, secret: (signed(event, secret)[0], ""),
    "wrong secret": lambda event, _: signed(event, "whsec_guessed"),
    "empty secret": lambda event, _: signed(event, ""),
    "stale": lambda event, secret: signed(event, secret, at=utc_now() - timedelta(seconds=301)),
    "changed": lambda event, secret: (
        signed(event, secret)[0].replace(b"evt_", b"evt_1"),
        signed(event, secret)[1],
    ),
    "another scheme": lambda event, secret: (
        signed(event, secret)[0],
        signed(event, secret)[1].replace("v1=", "v0="),
    ),
    "no header": lambda event, secret: (signed(event, secret)[0], "t=1,,=,v1"),
    "not UTF-8": lambda event, secret: (b"\xff" + signed(event, secret)[0], signed(event, secret)[1]),
    "other mode": lambda event, secret: signed({**event, "livemode": True}, secret),
    "no mode": lambda event, secret: signed({**event, "livemode": None}, secret),
    "foreign account": lambda event, secret: signed({**event, "account": "acct_foreign"}, secret),
    "no event": lambda _event, secret: signed({"hello": "world"}, secret),
    "thin event": lambda event, secret: signed({**event, "object": "v2.core.event"}, secret),
    "a list": lambda event, secret: signed([event], secret),  # type: ignore[arg-type]
    "no object": lambda event, secret: signed({**event, "data": {"object": None}}, secret),
    "long id": lambda event, secret: signed({**event, "id": "evt_" + "x" * 300}, secret),
    "long type": lambda event, secret: signed({**event, "type": "x" * 101}, secret),
    "NUL in a text": lambda event, secret: signed({**event, "id": "evt_\0"}, secret),
    "half a letter": lambda event, secret: signed({**event, "type": "checkout.session.\ud800"}, secret),
    "NUL in the rest": lambda event, secret: signed({**event, "request": "\0"}, secret),
    "large": lambda event, secret: signed({**event, "padding": "x" * inbox.MAX_EVENT_BYTES}, secret),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_events_change_nothing(standin: Standin, name: str) -> None:
    _, session = paid_session(standin)
    before = stripe_tables()
    body, signature = FORGERIES[name](event_about(session), standin.webhook_secret)
    with role_scope("operator"), pytest.raises(EventRefused):
        inbox.receive_event(body=body, signature=signature, now=utc_now())
    assert stripe_tables() == before


@pytest.mark.parametrize("secrets", [(), ("",), (" ",)])
def test_without_a_secret_everything_is_refused(
    standin: Standin, monkeypatch: pytest.MonkeyPatch, secrets: tuple[str, ...]
) -> None:
    monkeypatch.setattr(settings, "STRIPE_WEBHOOK_SECRETS", secrets)
    before = stripe_tables()
    for secret in ("", " ", standin.webhook_secret):
        with pytest.raises(EventRefused):
            receive(event_about("cs_test_x"), secret)
    assert stripe_tables() == before


def test_a_named_account_must_be_ours(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_ACCOUNT", "acct_ours")
    assert receive(event_about("cs_test_x", account="acct_ours"), standin.webhook_secret).is_new
    with pytest.raises(EventRefused):
        receive(event_about("cs_test_x", account="acct_foreign"), standin.webhook_secret)


def test_what_nothing_handles_and_what_is_foreign_is_ignored(standin: Standin) -> None:
    foreign = standin.control.books()["sessions"]
    assert all(one["id"] != "cs_test_unknown" for one in foreign)
    for event in (
        event_about("cs_test_unknown"),
        event_about("pi_unknown", "payment_intent.succeeded"),
        event_about("prod_1", "product.created"),
    ):
        receive(event, standin.webhook_secret)
        assert inbox.process_event(event_id=event["id"], now=utc_now()) == EventState.IGNORED


def test_what_fails_is_tried_again_and_then_given_up(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, session = paid_session(standin)
    event = event_about(session)
    receive(event, standin.webhook_secret)
    standin.control.fault("error_before", match="GET /v1/checkout/sessions/", times=2)
    now = utc_now()
    assert inbox.process_event(event_id=event["id"], now=now) == EventState.FAILED
    row = event_row(event["id"])
    assert row.error
    assert row.next_attempt_at > now
    assert inbox.process_event(event_id=event["id"], now=now) is None, "not yet"
    now = row.next_attempt_at
    assert inbox.process_event(event_id=event["id"], now=now) == EventState.FAILED
    pause = event_row(event["id"]).next_attempt_at - now
    assert pause == 2 * inbox.FIRST_RETRY
    assert event["id"] in inbox.due_events(now=now + pause)
    inbox.process_due_events(now=now + pause)
    assert event_row(event["id"]).state == EventState.PROCESSED
    assert event_row(event["id"]).error == ""
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


def test_what_fails_for_ever_waits_for_an_operator(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, session = paid_session(standin)
    event = event_about(session)
    receive(event, standin.webhook_secret)

    def fail(*, object_id: str, now: Any) -> bool:
        raise RuntimeError("on purpose")

    now = utc_now()
    with monkeypatch.context() as patched:
        patched.setattr(inbox, "find_handler", lambda _type: fail)
        while event_row(event["id"]).attempts < inbox.MAX_ATTEMPTS:
            assert inbox.process_event(event_id=event["id"], now=now) == EventState.FAILED
            now = event_row(event["id"]).next_attempt_at
    assert now - utc_now() > timedelta(days=3)
    assert inbox.process_event(event_id=event["id"], now=now + timedelta(days=9)) is None
    with role_scope("operator"):
        with pytest.raises(audit.ReasonMissing):
            inbox.replay_event(event_id=event["id"], actor=audit.SYSTEM, reason=" ", now=now)
        with pytest.raises(inbox.EventNotFound):
            inbox.replay_event(event_id="evt_none", actor=audit.SYSTEM, reason="for the test", now=now)
        inbox.replay_event(event_id=event["id"], actor=audit.SYSTEM, reason="for the test", now=now)
    assert inbox.process_event(event_id=event["id"], now=now) == EventState.PROCESSED
    assert credits_of(tenant.id) == [("TOP_UP", 20 * NANOS_PER_UNIT)]
    (audited,) = rows_of("tenants_auditevent", action="stripe_event.replay", target=event["id"])
    assert audited["reason"] == "for the test"


def test_replaying_moves_no_money(standin: Standin) -> None:
    tenant, session = paid_session(standin)
    kinds = ("completed", "async_payment_succeeded", "async_payment_failed", "expired")
    events = [event_about(session, f"checkout.session.{kind}") for kind in kinds]
    for event in events:
        receive(event, standin.webhook_secret)
        assert inbox.process_event(event_id=event["id"], now=utc_now()) == EventState.PROCESSED
    before = credits_of(tenant.id)
    assert before == [("TOP_UP", 20 * NANOS_PER_UNIT)]
    for event in events:
        with role_scope("operator"):
            inbox.replay_event(event_id=event["id"], actor=audit.SYSTEM, reason="again", now=utc_now())
        assert inbox.process_event(event_id=event["id"], now=utc_now()) == EventState.PROCESSED
    assert credits_of(tenant.id) == before


def test_whoever_died_with_an_event_leaves_it_to_others(standin: Standin) -> None:
    _, session = paid_session(standin)
    event = event_about(session)
    receive(event, standin.webhook_secret)
    now = utc_now()
    with role_scope("operator"):
        StripeEvent.objects.filter(id=event["id"]).update(attempts=1, next_attempt_at=now + inbox.CLAIM_LEASE)
    assert inbox.process_event(event_id=event["id"], now=now) is None
    later = now + inbox.CLAIM_LEASE
    assert inbox.process_event(event_id=event["id"], now=later) == EventState.PROCESSED


def test_nothing_is_processed_without_a_key(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    event = event_about("cs_test_x")
    receive(event, standin.webhook_secret)
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    assert inbox.process_event(event_id=event["id"], now=utc_now()) is None
    assert polling.poll_events(now=utc_now()) == polling.PollReport()
    assert polling.poll_open_top_ups(now=utc_now()) == 0
    assert event_row(event["id"]).attempts == 0


def test_the_longest_beginning_wins() -> None:
    assert handlers.find_handler("product.created") is None
    assert handlers.find_handler("checkout.session.completed") is handlers.HANDLERS["checkout.session."]
