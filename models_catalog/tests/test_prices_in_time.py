"""Which version and which window hold at a moment: local weeks, clock changes, private prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_catalog.models import PriceVersion
from models_catalog.tests.price_drafts import Draft, Line, make_draft, make_model, query, undone
from tenants.operations import create_tenant

pytestmark = pytest.mark.usefixtures("database")

LINES = [Line("input", 1), Line("output", 1)]
WEEK_MINUTES = 10_080

# Moments around which local clocks jump: Berlin in 2026 both ways, Shanghai when it last had summer time.
JUMPS = {
    "Europe/Berlin": [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)],
    "Asia/Shanghai": [datetime(1991, 4, 13, 18, tzinfo=UTC), datetime(1991, 9, 14, 15, tzinfo=UTC)],
}


@st.composite
def disjoint_spans(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Spans of two windows, at most one open at any minute."""
    edges = sorted(draw(st.lists(st.integers(0, WEEK_MINUTES), min_size=2, max_size=16, unique=True)))
    found = []
    for start, end in pairwise(edges):
        name = draw(st.sampled_from(["", "night", "weekend"]))
        if name:
            found.append((name, start, end))
    return found


@st.composite
def moments(draw: st.DrawFn, zone: str) -> datetime:
    new_year = datetime(2026, 1, 1, tzinfo=UTC)
    any_time = st.integers(0, 365 * 1440).map(lambda minutes: new_year + timedelta(minutes=minutes))
    start = draw(st.one_of(st.sampled_from(JUMPS[zone]), any_time))
    return start + timedelta(seconds=draw(st.integers(-7200, 7200)))


def window_at(draft: Draft, moment: datetime) -> str | None:
    [(found,)] = query("SELECT catalog_window_at(%s, %s)", [draft.version_id, moment])
    names = {window_id: name for name, window_id in draft.window_ids.items()}
    return None if found is None else names[found]


@pytest.mark.parametrize("zone", list(JUMPS))
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_windows_follow_the_local_clock(zone: str, data: st.DataObject) -> None:
    spans = data.draw(disjoint_spans())
    with undone():
        draft = make_draft(LINES, spans=spans, time_zone=zone)
        for moment in data.draw(st.lists(moments(zone), min_size=1, max_size=8)):
            local = moment.astimezone(ZoneInfo(zone))
            minute = local.weekday() * 1440 + local.hour * 60 + local.minute
            expected = [name for name, start, end in spans if start <= minute < end]
            assert window_at(draft, moment) == (expected[0] if expected else None)


def test_an_hour_that_the_clock_skips_or_repeats() -> None:
    sunday_2am = (6 * 1440 + 120, 6 * 1440 + 180)
    with undone():
        draft = make_draft(LINES, spans=[("night", *sunday_2am)], time_zone="Europe/Berlin")
        spring, autumn = JUMPS["Europe/Berlin"]
        half_hours = [timedelta(minutes=minutes) for minutes in range(-120, 120, 30)]
        assert [window_at(draft, spring + each) for each in half_hours] == [None] * 8
        assert [window_at(draft, autumn + each) for each in half_hours] == [
            *(None, None, "night", "night"),
            *("night", "night", None, None),
        ]


@pytest.mark.parametrize(("minute", "window"), [(59, None), (60, "night"), (119, "night"), (120, None)])
def test_spans_are_half_open(minute: int, window: str | None) -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC)
    with undone():
        draft = make_draft(LINES, spans=[("night", 60, 120)])
        assert window_at(draft, monday + timedelta(minutes=minute, seconds=59.999)) == window


def publish(draft: Draft) -> UUID:
    PriceVersion.objects.filter(id=draft.version_id).update(published_at=datetime(2026, 1, 1, tzinfo=UTC))
    return draft.version_id


def version_at(model_id: UUID, tenant_id: UUID, moment: datetime, currency: str = "USD") -> UUID | None:
    found: UUID | None
    [(found,)] = query("SELECT catalog_version_at(%s, %s, %s, %s)", [model_id, tenant_id, currency, moment])
    return found


def test_a_private_price_beats_the_list_for_its_tenant_while_it_lasts() -> None:
    start, end = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    instant = timedelta(microseconds=1)
    with undone():
        model = make_model()
        tenant = create_tenant(name="Private", currency="USD", owner_id=None)
        listed = publish(make_draft(LINES, model=model))
        private = publish(make_draft(LINES, model=model, tenant=tenant, active_from=start, active_to=end))
        assert version_at(model.id, tenant.id, start - instant) == listed
        assert version_at(model.id, tenant.id, start) == private
        assert version_at(model.id, tenant.id, end - instant) == private
        assert version_at(model.id, tenant.id, end) == listed
        assert version_at(model.id, uuid4(), start) == listed
        assert version_at(model.id, tenant.id, start, "CNY") is None


def test_versions_follow_each_other_without_a_gap_and_drafts_do_not_count() -> None:
    start = datetime(2026, 6, 1, tzinfo=UTC)
    instant = timedelta(microseconds=1)
    with undone():
        model = make_model()
        assert version_at(model.id, uuid4(), start) is None
        first = publish(make_draft(LINES, model=model, active_to=start))
        second = publish(make_draft(LINES, model=model, active_from=start))
        make_draft(LINES, model=model, active_from=start)
        assert version_at(model.id, uuid4(), start - instant) == first
        assert version_at(model.id, uuid4(), start) == second
        assert version_at(model.id, uuid4(), datetime(2025, 12, 31, tzinfo=UTC)) is None
