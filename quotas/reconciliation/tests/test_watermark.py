"""Until when feeds have been read: idle ones, dead ones, and those that are behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from models_catalog.models import UsageFeed
from portal.kit.clock import utc_now
from quotas.models import FeedState
from quotas.reconciliation.tests.said import Said, make_feed, served, take
from quotas.reconciliation.watermark import FeedWatermark, backends_read_to, usage_read_to, watermarks
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant, silence_feeds

WAIT = timedelta(days=3)
GRACE = timedelta(seconds=300)
CALL_TIMEOUT = timedelta(seconds=900)


@pytest.fixture
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    tenant = make_tenant(granted="5.00")
    enable(tenant, model)
    return tenant


@pytest.fixture
def feed_id(model: ModelFixture) -> Iterator[UUID]:
    silence_feeds()
    yield make_feed(model.backend_id)
    silence_feeds()


def mark_of(feed_id: UUID, now: datetime) -> FeedWatermark:
    with role_scope("operator"):
        (found,) = [mark for mark in watermarks(now=now) if mark.feed_id == feed_id]
    return found


def state(feed_id: UUID, **fields: object) -> None:
    with role_scope("dataplane"):
        FeedState.objects.update_or_create(feed_id=feed_id, defaults=fields)


def serve(tenant: TenantFixture, model: ModelFixture) -> tuple[UUID, datetime]:
    """A whole answer: its attempt, and when it ended."""
    with connected("dataplane") as dataplane:
        row = served(dataplane, tenant, model, 10, 20)
    (attempt,) = rows_of("quotas_attempt", id=row.attempt_id)
    return row.attempt_id, attempt["ended_at"]


def test_a_pushed_feed_is_complete_to_the_oldest_call_that_waits_for_it(
    tenant: TenantFixture, model: ModelFixture, feed_id: UUID
) -> None:
    later = utc_now() + timedelta(hours=1)
    assert mark_of(feed_id, later).complete_to == later
    (first, first_end), (second, second_end) = serve(tenant, model), serve(tenant, model)
    mark = mark_of(feed_id, later)
    assert (mark.complete_to, mark.is_blocking, mark.is_overdue) == (first_end, True, False)
    assert mark.read_to == first_end - GRACE
    take(feed_id, [Said(first, 10, 20)])
    assert mark_of(feed_id, later).complete_to == second_end
    take(feed_id, [Said(second, 10, 20)])
    mark = mark_of(feed_id, later)
    assert (mark.complete_to, mark.is_blocking, mark.lag_s) == (later, False, 0)


def test_what_others_have_overtaken_does_not_hold_it_back(
    tenant: TenantFixture, model: ModelFixture, feed_id: UUID
) -> None:
    _, ended_at = serve(tenant, model)
    later = utc_now() + timedelta(hours=1)
    state(feed_id, heard_at=ended_at + GRACE - timedelta(seconds=1))
    assert mark_of(feed_id, later).complete_to == ended_at
    state(feed_id, heard_at=ended_at + GRACE)
    assert mark_of(feed_id, later).complete_to == later


def test_a_dead_feed_is_overdue_in_the_end(tenant: TenantFixture, model: ModelFixture, feed_id: UUID) -> None:
    _, ended_at = serve(tenant, model)
    state(feed_id, error="the folder cannot be read")
    mark = mark_of(feed_id, ended_at + WAIT)
    assert (mark.is_blocking, mark.is_overdue, mark.error) == (True, False, "the folder cannot be read")
    late = ended_at + WAIT + timedelta(hours=1)
    mark = mark_of(feed_id, late)
    assert (mark.complete_to, mark.read_to) == (ended_at, late - WAIT)
    assert (mark.is_blocking, mark.is_overdue) == (False, True)


def test_a_folder_is_complete_to_where_it_was_read(model: ModelFixture, feed_id: UUID) -> None:
    with role_scope("operator"):
        UsageFeed.objects.filter(id=feed_id).update(folder="/feeds/one")
    now = utc_now()
    assert mark_of(feed_id, now + timedelta(hours=1)).is_blocking
    state(feed_id, complete_to=now)
    mark = mark_of(feed_id, now + timedelta(minutes=5))
    assert (mark.complete_to, mark.is_blocking, mark.lag_s) == (now, False, 300)


def test_usage_is_read_to_what_the_last_feed_says(model: ModelFixture, feed_id: UUID) -> None:
    other = make_feed(model.backend_id)
    now = utc_now() + timedelta(hours=2)
    with role_scope("operator"):
        UsageFeed.objects.filter(id=other).update(folder="/feeds/two")
        behind = mark_of(other, now).read_to
        assert usage_read_to(now) == behind - CALL_TIMEOUT
        assert backends_read_to(watermarks(now=now)) == {model.backend_id: behind}
        UsageFeed.objects.filter(id__in=[other, feed_id]).update(is_enabled=False)
        assert usage_read_to(now) is None
