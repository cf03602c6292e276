"""Organizations are told of corrections that are large enough, once."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.conf import settings

from portal.kit.clock import utc_now
from quotas.reconciliation.notices import tell_corrections
from quotas.reconciliation.tests.said import Said, make_feed, post, served, take
from quotas.tests.doors import Connection
from tenants.models import OutboxMessage
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import ModelFixture, TenantFixture, enable, make_model
from tests.people import make_member, make_owner


@pytest.fixture
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture
def feed(model: ModelFixture) -> UUID:
    return make_feed(model.backend_id)


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    made, _owner = make_owner(granted="1000.00")
    make_member(made, "BILLING")
    make_member(made, "DEVELOPER")
    enable(made, model)
    return made


def tell() -> int:
    with role_scope("operator"):
        return tell_corrections(now=utc_now())


def mails_to(tenant: TenantFixture) -> list[OutboxMessage]:
    with role_scope("dataplane"):
        return list(OutboxMessage.objects.filter(tenant_id=tenant.id, subject__contains="corrected"))


def corrected(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, completion: int
) -> UUID:
    """A call of 20 tokens that the record says were so many, at 2,000 nano-units each."""
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 10, completion)])
    return row.request_id


def test_one_mail_tells_of_all_and_nobody_is_told_twice(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    feed: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_CORRECTION_MAIL_UNITS", 0)
    calls = [corrected(dataplane, tenant, model, feed, tokens) for tokens in (25, 18)]
    post()
    assert tell() >= 2
    mails = mails_to(tenant)
    # Whom money concerns: the owner and who looks after billing.
    assert len(mails) == 2
    assert len({mail.to_email for mail in mails}) == 2
    (mail, _other) = mails
    # 5 more and 2 fewer tokens.
    assert "corrected by -$0.000006" in mail.subject
    assert mail.text_body.count("req_") == 2
    assert "2 calls were billed anew" in mail.text_body
    assert "/statement/" in mail.html_body
    assert tell() == 0
    assert len(mails_to(tenant)) == 2
    assert len([call for call in calls if rows_of("quotas_correctionnotice", request_id=call)]) == 2


def test_what_is_small_is_on_the_statement_only(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    assert settings.TUNING["SLUICE_CORRECTION_MAIL_UNITS"] == 1
    call = corrected(dataplane, tenant, model, feed, 25)
    post()
    tell()
    assert rows_of("quotas_correction", request_id=call)
    assert mails_to(tenant) == []
    assert rows_of("quotas_correctionnotice", request_id=call) == []
