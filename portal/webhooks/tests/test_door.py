"""The door for Stripe's events: 200 for what is signed and stored, 400 for anything else."""

from __future__ import annotations

import http.client
import io
import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.test import Client

from portal.kit.clock import utc_now
from portal.webhooks import views
from portal.webhooks.tests.stage import PATH, Stage
from quotas.payments import inbox
from quotas.payments.tests.stripe_side import event_about, signed, stripe_tables
from tests.database import rows_of

SECRET = "whsec_of_this_test"


@pytest.fixture(autouse=True)
def _configured(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "sk_test_of_this_test")
    monkeypatch.setattr(settings, "STRIPE_WEBHOOK_SECRETS", (SECRET,))
    monkeypatch.setattr(settings, "STRIPE_ACCOUNT", "")


def post(body: bytes, signature: str | None, client: Client | None = None) -> int:
    headers = {} if signature is None else {"Stripe-Signature": signature}
    answer = (client or Client(enforce_csrf_checks=True)).post(
        PATH, data=body, content_type="application/json", headers=headers
    )
    return answer.status_code


def test_a_signed_event_is_stored_once_and_answered_each_time() -> None:
    event = event_about("cs_test_door")
    body, signature = signed(event, SECRET)
    assert [post(body, signature) for _ in range(3)] == [200, 200, 200]
    (row,) = rows_of("quotas_stripeevent", id=event["id"])
    assert (row["state"], row["source"], row["object_id"]) == ("RECEIVED", "WEBHOOK", "cs_test_door")
    assert row["payload"] == event


@pytest.mark.parametrize(
    "name",
    ["unsigned", "guessed", "stale", "foreign", "live", "changed", "empty", "garbage", "unsignable", "large"],
)
def test_anything_else_is_refused_and_changes_nothing(name: str) -> None:
    event = event_about("cs_test_door")
    body, signature = signed(event, SECRET)
    given: dict[str, tuple[bytes, str | None]] = {
        "unsigned": (body, None),
        "guessed": signed(event, "whsec_guessed"),
        "stale": signed(event, SECRET, at=utc_now() - timedelta(minutes=6)),
        "foreign": signed({**event, "account": "acct_other"}, SECRET),
        "live": signed({**event, "livemode": True}, SECRET),
        "changed": (body.replace(b"cs_test_door", b"cs_test_mine"), signature),
        "empty": (b"", signature),
        "garbage": (b"\x00\xff{", "t=1,v1=\xff"),
        # Text that only the signature has no business with.
        "unsignable": (body, f"t=1,v1={'é' * 32}"),
        "large": signed({**event, "padding": "x" * inbox.MAX_EVENT_BYTES}, SECRET),
    }
    before = stripe_tables()
    assert post(*given[name]) == 400
    assert stripe_tables() == before


def test_a_body_of_unsaid_length_is_read_no_further_than_an_event_is_long() -> None:
    class Endless(io.BytesIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= inbox.MAX_EVENT_BYTES + 1
            self.given += size
            return b"x" * size

    sent = Endless()
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"transfer-encoding", b"chunked")]}
    assert views.stripe_events(ASGIRequest(scope, sent)).status_code == 400
    assert sent.given <= inbox.MAX_EVENT_BYTES + 1


def test_without_secrets_and_without_a_key_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body, signature = signed(event_about("cs_test_door"), SECRET)
    before = stripe_tables()
    with monkeypatch.context() as patched:
        patched.setattr(settings, "STRIPE_WEBHOOK_SECRETS", ())
        assert post(body, signature) == 400
        assert post(*signed(event_about("cs_test_door"), "")) == 400
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    assert post(body, signature) == 400
    assert stripe_tables() == before


@pytest.mark.parametrize("method", ["get", "put", "delete", "options"])
def test_only_posts_are_answered(method: str) -> None:
    assert getattr(Client(), method)(PATH).status_code == 405


def test_a_worker_that_cannot_be_woken_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from celery import current_app

    monkeypatch.setattr(current_app.conf, "broker_url", "redis://127.0.0.1:9/0")
    event = event_about("cs_test_door")
    assert post(*signed(event, SECRET)) == 200
    assert event["id"] in inbox.due_events(now=utc_now())


def test_the_real_process_refuses_forgeries(stage: Stage) -> None:
    """Over HTTP, with the settings of the web process: what a forger sends, and what is too large."""
    event = event_about("cs_test_door")
    before = stripe_tables()
    refused = [
        signed(event, SECRET),
        (json.dumps(event).encode(), ""),
        signed(event, stage.standin.webhook_secret, at=utc_now() - timedelta(minutes=6)),
        (b"x" * (inbox.MAX_EVENT_BYTES + 1), "t=1,v1=00"),
    ]
    parts = urlsplit(stage.web.url)
    for body, signature in refused:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
        connection.request("POST", PATH, body=body, headers={"Stripe-Signature": signature})
        assert connection.getresponse().status == 400
        connection.close()
    assert stripe_tables() == before
