"""Monthly invoices wait for the backends' feeds; what a feed says after that is on the next one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from models_catalog.models import UsageFeed
from portal.kit.clock import utc_now
from quotas.models import FeedState, MonthlyInvoice
from quotas.payments.postpaid.drawing import draw_up_invoices
from quotas.payments.tests.postpaid_side import (
    after_month,
    broken_invariants,
    dear_model,
    invoices_of,
    lines_of,
    make_postpaid,
    no_lag,
    usage_of,
    used_by,
    wallet_of,
)
from quotas.reconciliation.tests.said import Said, make_feed, post, served, take
from quotas.tests.doors import Connection
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import ModelFixture, TenantFixture

Party = tuple[TenantFixture, ModelFixture, UUID]


@pytest.fixture
def dataplane(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    no_lag(monkeypatch)
    with connected("dataplane") as connection:
        yield connection


@pytest.fixture
def party(dataplane: Connection) -> Iterator[Party]:
    """An organization that pays by the month, a model, and the feed of its backend, to which it is pushed."""
    model = dear_model()
    tenant = make_postpaid(model, line_units=10_000)
    feed_id = make_feed(model.backend_id)
    yield tenant, model, feed_id
    with role_scope("operator"):
        UsageFeed.objects.filter(id=feed_id).update(is_enabled=False)


def draw(tenant: TenantFixture, months: int = 1) -> list[MonthlyInvoice]:
    draw_up_invoices(now=after_month(months), tenant_id=tenant.id)
    return invoices_of(tenant.id)


def heard(feed_id: UUID) -> None:
    """The feed has told of other calls since, long after the time that a line may take."""
    with role_scope("dataplane"):
        FeedState.objects.update_or_create(
            feed_id=feed_id, defaults={"heard_at": utc_now() + timedelta(hours=1)}
        )


def test_an_invoice_waits_until_the_feed_has_told_of_all_calls(party: Party, dataplane: Connection) -> None:
    tenant, model, feed_id = party
    row = served(dataplane, tenant, model, 10, 20)
    assert draw(tenant) == []
    take(feed_id, [Said(row.attempt_id, 10, 20)])
    (invoice,) = draw(tenant)
    assert usage_of(invoice) == used_by([row])


def test_a_dead_feed_holds_invoices_up_no_longer_than_the_wait(party: Party, dataplane: Connection) -> None:
    tenant, model, _ = party
    row = served(dataplane, tenant, model, 10, 20)
    draw_up_invoices(now=after_month() + timedelta(days=2), tenant_id=tenant.id)
    assert invoices_of(tenant.id) == []
    draw_up_invoices(now=after_month() + timedelta(days=4), tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert usage_of(invoice) == used_by([row])


@pytest.mark.parametrize(("prompt", "completion"), [(10, 25), (10, 11)])
def test_what_a_feed_says_too_late_is_on_the_next_invoice(
    party: Party, dataplane: Connection, prompt: int, completion: int
) -> None:
    tenant, model, feed_id = party
    in_time, too_late = (served(dataplane, tenant, model, 10, 20) for _ in range(2))
    take(feed_id, [Said(in_time.attempt_id, 10, 20)])
    assert draw(tenant) == []
    heard(feed_id)
    (invoice,) = draw(tenant)
    before = [(line.units, line.amount_nanos, line.asked_nanos) for line in lines_of(invoice)]
    asked = invoice.amount_nanos
    assert usage_of(invoice) == used_by([in_time, too_late])

    take(feed_id, [Said(too_late.attempt_id, prompt, completion)])
    post()
    assert draw(tenant)[0].amount_nanos == asked
    first, second = draw(tenant, 2)
    assert [(line.units, line.amount_nanos, line.asked_nanos) for line in lines_of(first)] == before
    assert [(key, units) for key, (units, _nanos) in usage_of(second).items()] == [
        ((model.id, "output"), completion - 20)
    ]
    both = usage_of(first)
    for key, (units, nanos) in usage_of(second).items():
        both[key] = (both[key][0] + units, both[key][1] + nanos)
    assert both == used_by([in_time, too_late])
    assert first.amount_nanos + second.amount_nanos + second.due_nanos - second.amount_nanos == (
        -wallet_of(tenant.id).paid_nanos
    )
    assert broken_invariants() == {}
