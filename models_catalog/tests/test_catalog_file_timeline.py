"""Weekly spans and the timeline of prices, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_catalog.catalog_file.timeline import (
    EndStep,
    PassedStep,
    Published,
    PublishStep,
    Wanted,
    plan_timeline,
)
from models_catalog.pricing.content import PriceContent
from models_catalog.pricing.weeks import InvalidSpan, merged, overlap, parse_span
from portal.kit.ids import uuid7

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("Mon 00:30-08:30", [(30, 510)]),
        ("Mon-Tue 00:30-08:30", [(30, 510), (1470, 1950)]),
        ("Mon-Sun 00:00-24:00", [(0, 10080)]),
        ("Mon 22:00-06:00", [(1320, 1800)]),
        ("Sun 22:00-06:00", [(0, 360), (9960, 10080)]),
        ("Sat 22:00-Sun 06:00", [(8520, 9000)]),
        ("Sun 22:00-Mon 06:00", [(0, 360), (9960, 10080)]),
        ("Sat 00:00-Mon 00:00", [(7200, 10080)]),
        ("Sat 00:00-Sun 24:00", [(7200, 10080)]),
        ("Sat-Mon 10:00-11:00", [(600, 660), (7800, 7860), (9240, 9300)]),
        ("Mon 10:00-Mon 09:59", [(0, 599), (600, 10080)]),
    ],
)
def test_spans_become_minutes_of_the_week(text: str, spans: list[tuple[int, int]]) -> None:
    assert merged(parse_span(text)) == tuple(spans)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Mon", "mon 00:00-01:00", "Mon 0:00-1:00", "Mon 00:00 - 01:00", "Mon 24:00-01:00"),
        *("Mon 24:30-25:00", "Mon 00:00-24:01", "Mon-Tue 00:00-Wed 01:00", "Mon 10:00-10:00"),
        *("Mon 10:00-Mon 10:00", "Mon 00:60-01:00"),
    ],
)
def test_other_texts_are_no_spans(text: str) -> None:
    with pytest.raises(InvalidSpan):
        parse_span(text)


span_lists = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    max_size=8,
)


@given(span_lists, span_lists)
def test_merging_keeps_the_minutes_and_overlap_sees_common_ones(one, other) -> None:
    def minutes(spans):
        return {minute for start, end in spans for minute in range(start, end)}

    assert minutes(merged(one)) == minutes(one)
    assert all(end < start for (_, end), (start, _) in zip(merged(one), merged(one)[1:], strict=False))
    assert overlap(merged(one), merged(other)) == bool(minutes(one) & minutes(other))


def content(label: int) -> PriceContent:
    return PriceContent(f"Zone/{label}", frozenset(), frozenset())


def hours(count: int) -> datetime:
    return NOW + timedelta(hours=count)


@st.composite
def published_versions(draw) -> list[Published]:
    """Versions without overlap, with gaps, some withdrawn, the last perhaps open."""
    edges = sorted(draw(st.lists(st.integers(-4, 6), max_size=8, unique=True)))
    found = []
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        label = draw(st.integers(0, 2))
        found.append(Published(uuid7(), hours(start), hours(end), content(label)))
        if draw(st.booleans()):
            found.append(Published(uuid7(), hours(start), hours(start), content(draw(st.integers(0, 2)))))
    if len(edges) % 2:
        found.append(Published(uuid7(), hours(edges[-1]), None, content(draw(st.integers(0, 2)))))
    return found


@st.composite
def wanted_entries(draw) -> list[Wanted]:
    starts = draw(st.lists(st.one_of(st.none(), st.integers(-4, 6)), min_size=1, max_size=4, unique=True))
    return [
        Wanted(index, None if start is None else hours(start), content(draw(st.integers(0, 2))))
        for index, start in enumerate(starts)
    ]


def made(published: list[Published], steps) -> list[Published]:
    """The versions after the steps."""
    by_id: dict[UUID, Published] = {version.id: version for version in published}
    for step in steps:
        if isinstance(step, EndStep):
            version = by_id[step.version.id]
            by_id[version.id] = Published(version.id, version.active_from, step.at, version.content)
        elif isinstance(step, PublishStep):
            new = Published(uuid7(), step.active_from, step.active_to, step.wanted.content)
            by_id[new.id] = new
    return list(by_id.values())


def in_force(versions: list[Published], moment: datetime) -> list[PriceContent]:
    return [
        version.content
        for version in versions
        if version.active_from <= moment and (version.active_to is None or moment < version.active_to)
    ]


@given(published_versions(), wanted_entries())
@settings(max_examples=500)
def test_the_timeline_becomes_what_the_file_says(published: list[Published], wanted: list[Wanted]) -> None:
    steps = plan_timeline(published, wanted, NOW)
    if any(isinstance(step, PassedStep) for step in steps):
        passed = next(step.wanted for step in steps if isinstance(step, PassedStep))
        assert passed.active_from is not None
        assert passed.active_from < NOW
        assert in_force(published, NOW) != [passed.content]
        return
    after = made(published, steps)
    for step in steps:
        if isinstance(step, EndStep):
            # Only an end that has not passed may be set, to a moment that has not passed.
            assert step.version.active_to is None or step.version.active_to > NOW
            assert max(NOW, step.version.active_from) <= step.at
            assert step.version.active_to is None or step.at < step.version.active_to
    entries = sorted(wanted, key=lambda entry: entry.active_from or hours(-100))
    untouched = [version.active_from for version in published if version in after]
    last_start = max(entries[-1].active_from or NOW, NOW)
    half_hours = [NOW + timedelta(minutes=30 * step) for step in range(-10, 20)]
    for moment in half_hours:
        now_valid = in_force(after, moment)
        assert len(now_valid) <= 1
        if moment < NOW and in_force(published, moment):
            assert now_valid == in_force(published, moment)
        speaking = [entry for entry in entries if entry.active_from is None or entry.active_from <= moment]
        if moment < NOW or not speaking:
            continue
        # After the last entry of the file, a version that begins later and that the file does not know stays.
        if not any(last_start < each <= moment for each in untouched):
            assert now_valid == [speaking[-1].content], moment
    assert plan_timeline(after, wanted, NOW) == []
    if not any(last_start < each for each in untouched):
        assert plan_timeline(after, wanted, hours(2)) == []


def test_a_price_whose_time_is_over_is_ignored() -> None:
    current = Published(uuid7(), hours(-5), None, content(1))
    wanted = [Wanted(0, None, content(0)), Wanted(1, hours(-3), content(1))]
    assert plan_timeline([current], wanted, NOW) == []


def test_a_later_price_that_the_file_does_not_know_stays() -> None:
    announced = Published(uuid7(), hours(5), None, content(1))
    current = Published(uuid7(), hours(-5), hours(5), content(0))
    wanted = Wanted(0, None, content(2))
    assert plan_timeline([current, announced], [wanted], NOW) == [
        EndStep(current, NOW),
        PublishStep(wanted, NOW, hours(5)),
    ]
