"""The outbox: mail commits with its cause, is sent once, tried again, given up, and then forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from celery import Celery, current_app
from django.db import transaction
from django.test import override_settings

from portal.kit.clock import utc_now
from tenants import operations, queries, tasks
from tenants.models.mail import MAX_ATTEMPTS, MAX_BODY_LENGTH
from tenants.operations import DeliveryReport, Mail, MailNotSent, OutgoingMail, outbox
from tenants.operations.outbox import CLAIM_LEASE, LONGEST_RETRY, retry_delay
from tenants.scope import ScopeMissing, role_scope, scope_alias, tenant_scope
from tenants.tests.mail_server import MailServer, running_mail_server
from tenants.tests.people import at_once
from tests.database import connected, rows_of
from tests.factories import make_tenant

# The house names the queue at the task; Celery would have it in a setting from its version 6.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*The 'queue' task attribute")

SENT = DeliveryReport(sent=1, failed=0, given_up=0)
NOTHING = DeliveryReport(0, 0, 0)


@pytest.fixture(autouse=True)
def _empty_outbox(database: None) -> None:
    """Other tests leave mail behind, which would be sent here."""
    with role_scope("dataplane"):
        operations.prune_outbox(now=utc_now() + timedelta(days=1), keep_days=0)


def enqueue(role: str = "auth", **fields: Any) -> UUID:
    mail = OutgoingMail(**{"to_email": "a@b.example", "subject": "Hello", "text_body": "link", **fields})
    with role_scope(role):
        return operations.enqueue_mail(mail=mail, now=utc_now())


def deliver(
    send: Any, *, now: datetime | None = None, limit: int = 10, keep_bodies: bool = False
) -> DeliveryReport:
    with role_scope("dataplane"):
        return operations.deliver_outbox(
            send=send, now=now or utc_now(), limit=limit, keep_bodies=keep_bodies
        )


def row_of(message_id: UUID) -> dict[str, Any]:
    (row,) = rows_of("tenants_outboxmessage", role="dataplane", id=message_id)
    return row


def refuse(mail: Mail) -> None:
    raise MailNotSent("451 try later")


@pytest.mark.parametrize("role", ["auth", "operator", "dataplane"])
def test_a_mail_is_sent_and_its_text_forgotten(role: str) -> None:
    message_id = enqueue(role, html_body="<p>link</p>")
    sent: list[Mail] = []
    assert deliver(sent.append) == SENT
    assert sent == [Mail(message_id, "a@b.example", "Hello", "link", "<p>link</p>")]
    assert "link" not in repr(sent)
    row = row_of(message_id)
    assert (row["text_body"], row["html_body"], row["attempts"]) == ("", "", 1)
    assert row["sent_at"] is not None
    assert deliver(sent.append) == NOTHING


def test_each_mail_of_a_slow_run_is_claimed_for_as_long_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that began with the run would end before its last mails are sent: they would go out twice."""
    slow_s, passed_s = 120.0, [0.0]
    monkeypatch.setattr(outbox, "_monotonic_s", lambda: passed_s[0], raising=False)
    for _ in range(3):
        enqueue()
    now = utc_now()

    def send(mail: Mail) -> None:
        left = row_of(mail.id)["next_attempt_at"] - (now + timedelta(seconds=passed_s[0]))
        assert left == CLAIM_LEASE
        passed_s[0] += slow_s

    assert deliver(send, now=now) == DeliveryReport(sent=3, failed=0, given_up=0)


def test_a_mailbox_keeps_the_text() -> None:
    message_id = enqueue()
    assert deliver(lambda mail: None, keep_bodies=True) == SENT
    assert row_of(message_id)["text_body"] == "link"


def test_a_mail_commits_with_what_it_is_about() -> None:
    with role_scope("auth"), transaction.atomic(using=scope_alias()):
        enqueue()
        transaction.set_rollback(True, using=scope_alias())
    assert rows_of("tenants_outboxmessage", role="dataplane") == []


def test_a_tenant_writes_mail_and_reads_none() -> None:
    tenant, other = make_tenant(granted=None), make_tenant(granted=None)
    mail = OutgoingMail("a@b.example", "Hello", "text")
    with tenant_scope(tenant.id):
        message_id = operations.enqueue_mail(mail=mail, now=utc_now(), tenant_id=tenant.id)
    assert row_of(message_id)["tenant_id"] == tenant.id
    statements = (
        "SELECT subject FROM tenants_outboxmessage",
        "UPDATE tenants_outboxmessage SET sent_at = now()",
        "DELETE FROM tenants_outboxmessage",
    )
    with connected("tenant") as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
                connection.execute(statement)
    for tenant_id in (other.id, None):
        with (
            pytest.raises(Exception, match="row-level security"),
            tenant_scope(tenant.id),
        ):
            operations.enqueue_mail(mail=mail, now=utc_now(), tenant_id=tenant_id)


def test_an_organization_sends_so_many_mails_a_day_and_no_more() -> None:
    tenant, other = make_tenant(granted=None), make_tenant(granted=None)
    many = (
        "INSERT INTO tenants_outboxmessage (id, tenant_id, to_email, subject, text_body, html_body, "
        "created_at, attempts, next_attempt_at, last_error) SELECT gen_random_uuid(), %s, 'a@b.example', "
        "'Hello', 'text', '', {}, 0, now(), '' FROM generate_series(1, %s)"
    )
    with connected("tenant") as connection:

        def send(tenant_id: UUID, count: int, created_at: str = "now()") -> None:
            with connection.transaction():
                connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant_id),))
                connection.execute(many.format(created_at), (tenant_id, count))

        send(tenant.id, 299, "now() - interval '2 days'")
        for count, created_at in ((2, "now()"), (1, "now() - interval '21 days'")):
            with pytest.raises(psycopg.errors.CheckViolation):
                send(tenant.id, count, created_at)
        send(tenant.id, 1)
        send(other.id, 1)
    with pytest.raises(operations.TooManyMails), tenant_scope(tenant.id):
        operations.enqueue_mail(
            mail=OutgoingMail("a@b.example", "Hello", "text"), now=utc_now(), tenant_id=tenant.id
        )
    enqueue()


@pytest.mark.parametrize("role", ["auth", "operator", "ingest"])
def test_only_the_worker_marks_and_deletes(role: str) -> None:
    enqueue()
    with connected(role) as connection:
        for statement in (
            "UPDATE tenants_outboxmessage SET sent_at = now()",
            "DELETE FROM tenants_outboxmessage",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.parametrize(
    "wrong",
    [
        {"to_email": "nobody"},
        {"to_email": "a@b.example, c@d.example"},
        {"to_email": "x" * 250 + "@b.example"},
        {"subject": ""},
        {"subject": "one\r\nBcc: two@b.example"},
        {"subject": "x" * 201},
        {"text_body": "x" * (MAX_BODY_LENGTH + 1)},
    ],
)
def test_what_is_no_mail_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(operations.InvalidMail):
        enqueue(**wrong)


def test_without_a_scope_nothing_is_written() -> None:
    with pytest.raises(ScopeMissing):
        operations.deliver_outbox(send=lambda mail: None, now=utc_now(), limit=1)


def test_a_refused_mail_is_tried_later_and_later_and_then_given_up() -> None:
    message_id, now = enqueue(), utc_now()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        is_last = attempt == MAX_ATTEMPTS
        assert deliver(refuse, now=now) == DeliveryReport(0, int(not is_last), int(is_last))
        row = row_of(message_id)
        assert (row["attempts"], row["last_error"], row["sent_at"]) == (attempt, "451 try later", None)
        assert row["next_attempt_at"] == now + retry_delay(attempt)
        assert deliver(refuse, now=row["next_attempt_at"] - timedelta(seconds=1)) == NOTHING
        now = row["next_attempt_at"]
    assert deliver(lambda mail: None, now=now + timedelta(days=9)) == NOTHING
    assert row_of(message_id)["text_body"] == "link"


def test_delays_double_up_to_the_longest() -> None:
    delays = [retry_delay(attempts) for attempts in range(1, 40)]
    assert delays[:3] == [timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120)]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_RETRY


def test_a_server_that_refuses_everything_is_left_alone() -> None:
    for _ in range(5):
        enqueue()
    assert deliver(refuse) == DeliveryReport(sent=0, failed=3, given_up=0)


def test_a_mail_whose_sender_died_is_sent_when_the_claim_ends() -> None:
    message_id, now = enqueue(), utc_now()

    def die(mail: Mail) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(die, now=now)
    sent: list[Mail] = []
    assert deliver(sent.append, now=now + CLAIM_LEASE - timedelta(seconds=1)) == NOTHING
    assert deliver(sent.append, now=now + CLAIM_LEASE) == SENT
    assert row_of(message_id)["attempts"] == 2


def test_no_lock_is_held_while_a_mail_is_sent() -> None:
    message_id = enqueue()

    def look(mail: Mail) -> None:
        with connected("owner") as observer:
            observer.execute(
                "SELECT 1 FROM tenants_outboxmessage WHERE id = %s FOR UPDATE NOWAIT", (message_id,)
            )

    assert deliver(look) == SENT


def test_workers_at_once_send_each_mail_once() -> None:
    expected = sorted(enqueue(subject=f"Mail {number}") for number in range(24))
    sent: list[UUID] = []
    reports = at_once([partial(deliver, lambda mail: sent.append(mail.id), limit=24)] * 4)
    assert sorted(sent) == expected
    assert sum(report.sent for report in reports if isinstance(report, DeliveryReport)) == 24


def test_old_mail_is_deleted() -> None:
    enqueue()
    with role_scope("dataplane"):
        assert operations.prune_outbox(now=utc_now(), keep_days=30) == 0
        assert operations.prune_outbox(now=utc_now() + timedelta(days=31), keep_days=30) == 1


def test_a_mailbox_lists_the_newest_first() -> None:
    first = enqueue(to_email="Me@b.example", subject="One")
    second = enqueue(subject="Two")
    with role_scope("auth"):
        assert [mail.id for mail in queries.list_mail()] == [second, first]
        (mine,) = queries.list_mail(to_email="me@b.example")
        assert (mine.subject, mine.text_body) == ("One", "link")
        assert [mail.id for mail in queries.list_mail(limit=1)] == [second]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("attempts = 11", psycopg.errors.CheckViolation),
        ("sent_at = now()", psycopg.errors.CheckViolation),
        ("text_body = repeat('x', 100001)", psycopg.errors.CheckViolation),
        ("html_body = repeat('x', 100001)", psycopg.errors.CheckViolation),
    ],
)
def test_the_database_bounds_a_mail(change: str, error: type[psycopg.Error]) -> None:
    message_id = enqueue()
    with connected("owner") as connection, pytest.raises(error):
        connection.execute(f"UPDATE tenants_outboxmessage SET {change} WHERE id = %s", (message_id,))


# --- The task, and a mail server ---------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[MailServer]:
    with (
        running_mail_server() as server,
        override_settings(
            MAILBOX=False,
            EMAIL_HOST="127.0.0.1",
            EMAIL_PORT=server.port,
            EMAIL_HOST_USER="",
            EMAIL_USE_TLS=False,
            EMAIL_USE_SSL=False,
            EMAIL_TIMEOUT=5,
        ),
    ):
        yield server


def test_the_task_hands_mail_to_the_server(server: MailServer) -> None:
    with override_settings(MAILBOX=True):
        message_id = enqueue(subject="Grüße 你好", html_body="<p>link</p>")
    tasks.deliver_mail()
    tasks.deliver_mail()
    (message,) = server.received
    assert (message["To"], message["Subject"]) == ("a@b.example", "Grüße 你好")
    assert str(message_id) in message["Message-ID"]
    parts = {part.get_content_type(): part.get_content().strip() for part in message.iter_parts()}
    assert parts == {"text/plain": "link", "text/html": "<p>link</p>"}
    assert row_of(message_id)["sent_at"] is not None


def test_the_task_notes_what_the_server_said(server: MailServer) -> None:
    server.refuses = True
    with override_settings(MAILBOX=True):
        message_id = enqueue()
    tasks.deliver_mail()
    row = row_of(message_id)
    assert "no such mailbox" in row["last_error"]
    assert (row["sent_at"], row["attempts"], row["text_body"]) == (None, 1, "link")


def test_the_task_survives_a_server_that_is_not_there(server: MailServer) -> None:
    with override_settings(MAILBOX=True):
        message_id = enqueue()
    with override_settings(EMAIL_PORT=9):
        tasks.deliver_mail()
    assert "ConnectionRefusedError" in row_of(message_id)["last_error"]


def test_with_a_mailbox_nothing_is_sent() -> None:
    message_id = enqueue()
    tasks.deliver_mail()
    tasks.prune_mail()
    row = row_of(message_id)
    assert (row["sent_at"], row["attempts"]) == (None, 0)


@contextmanager
def current_celery(broker: str) -> Iterator[Celery]:
    """A Celery application with this broker as the one of the process."""
    previous = current_app._get_current_object()
    with Celery("test", broker=broker, set_as_current=False) as app:
        app.set_current()
        try:
            yield app
        finally:
            previous.set_current()


def test_a_broker_that_is_away_costs_nothing(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    """The mail is in the outbox all the same, and the sweep sends it."""
    with current_celery("redis://127.0.0.1:9/0"):
        message_id = enqueue()
    assert "worker_not_woken" in caplog.text
    assert row_of(message_id)["sent_at"] is None


def test_the_worker_is_woken_after_the_commit_only(server: MailServer) -> None:
    with current_celery("memory://") as app, app.connection_for_write() as connection:
        queue = connection.SimpleQueue("default")
        with role_scope("auth"), transaction.atomic(using=scope_alias()):
            enqueue()
            assert queue.qsize() == 0
        assert queue.get(timeout=5).headers["task"] == "tenants.tasks.deliver_mail"
        queue.close()
