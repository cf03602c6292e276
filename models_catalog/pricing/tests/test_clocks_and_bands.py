"""Off-peak windows and input-length bands, charged across changes of the clock and at the borders of bands,
beside a plain reference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_catalog.pricing.tests.reference import Tokens, cost, window_at
from models_catalog.tests.price_drafts import Draft, Line, make_draft, price_lines, query, undone
from models_catalog.tests.test_prices_in_time import disjoint_spans

pytestmark = pytest.mark.usefixtures("database")

# Moments when local clocks jump forward and back.
JUMPS = {
    "Europe/Berlin": [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)],
    "America/New_York": [datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)],
    "Australia/Lord_Howe": [datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC)],
    # Summer time was last kept in 1991.
    "Asia/Shanghai": [datetime(1991, 4, 13, 18, tzinfo=UTC), datetime(1991, 9, 14, 15, tzinfo=UTC)],
}
MAX_TOKENS = 20_000_000


class Call(NamedTuple):
    at: datetime
    tier: str
    tokens: Tokens


@st.composite
def calls(draw: st.DrawFn, zone: str, lines: Sequence[Line]) -> Call:
    """Within hours of a change of the clock, with a prompt at a border of a band more often than not."""
    at = draw(st.sampled_from(JUMPS[zone])) + timedelta(
        seconds=draw(st.one_of(st.integers(-4 * 3600, 4 * 3600), st.sampled_from([-3600, -1, 0, 1, 3600])))
    )
    borders = sorted({edge for line in lines for edge in (line.start, line.end) if edge is not None})
    near = st.sampled_from(borders).flatmap(
        lambda border: st.sampled_from([max(0, border - 1), border, border + 1])
    )
    prompt = draw(st.one_of(near, near, st.integers(0, MAX_TOKENS)))
    cached = draw(st.integers(0, prompt))
    image = draw(st.integers(0, prompt - cached))
    completion = draw(st.integers(0, 100_000))
    reasoning = draw(st.integers(0, completion))
    tier = draw(st.sampled_from(["standard", "batch"]))
    return Call(at, tier, Tokens(prompt, cached, image, completion, reasoning))


def charged(draft: Draft, call: Call) -> tuple[str | None, int | None]:
    """The window and the cost as an admission and its settlement find them."""
    [(window_id, amount)] = query(
        "SELECT w.id, catalog_usage_cost(%(v)s, %(tier)s, w.id, %(p)s, %(c)s, %(i)s, %(o)s, %(r)s) "
        "FROM (SELECT catalog_window_at(%(v)s, %(at)s) AS id) w",
        {  # type: ignore[arg-type]
            "v": draft.version_id,
            "at": call.at,
            "tier": call.tier,
            "p": call.tokens.prompt,
            "c": call.tokens.cached,
            "i": call.tokens.image,
            "o": call.tokens.completion,
            "r": call.tokens.reasoning,
        },
    )
    names = {found: name for name, found in draft.window_ids.items()}
    return names.get(window_id), amount


@pytest.mark.parametrize("zone", list(JUMPS))
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_calls_are_charged_as_the_local_clock_and_the_length_of_the_input_say(
    zone: str, data: st.DataObject
) -> None:
    lines, spans = data.draw(price_lines()), data.draw(disjoint_spans())
    with undone():
        draft = make_draft(lines, spans=spans, time_zone=zone)
        for call in data.draw(st.lists(calls(zone, lines), min_size=1, max_size=8)):
            window = window_at(spans, zone, call.at)
            assert charged(draft, call) == (window, cost(lines, call.tier, window, call.tokens))


@pytest.mark.parametrize(
    ("zone", "jump", "open_minutes"),
    [
        # 01:30–03:30 by the clock on the wall. In spring it has no 02:00–03:00. In autumn 02:00–03:00 comes
        # twice in Berlin, and 01:00–02:00 in New York.
        ("Europe/Berlin", JUMPS["Europe/Berlin"][0], 60),
        ("Europe/Berlin", JUMPS["Europe/Berlin"][1], 180),
        ("America/New_York", JUMPS["America/New_York"][0], 60),
        ("America/New_York", JUMPS["America/New_York"][1], 150),
        ("Asia/Shanghai", datetime(2026, 3, 28, 18, tzinfo=UTC), 120),
    ],
)
def test_an_off_peak_window_is_as_long_as_the_local_night(
    zone: str, jump: datetime, open_minutes: int
) -> None:
    night = [("night", 6 * 1440 + 90, 6 * 1440 + 210)]
    lines = [Line("input", 2_000_000), Line("input", 1_000_000, window="night"), Line("output", 0)]
    with undone():
        draft = make_draft(lines, spans=night, time_zone=zone)
        minutes = [jump + timedelta(minutes=minute) for minute in range(-6 * 60, 6 * 60)]
        amounts = [charged(draft, Call(at, "standard", Tokens(prompt=1)))[1] for at in minutes]
    assert amounts.count(1) == open_minutes
    assert amounts.count(2) == len(minutes) - open_minutes


def test_a_band_ends_before_its_border() -> None:
    lines = [Line("input", 10**6, end=32_000), Line("input", 3 * 10**6, start=32_000), Line("output", 0)]
    with undone():
        draft = make_draft(lines)
        now = datetime(2026, 6, 1, tzinfo=UTC)
        found = {
            tokens: charged(draft, Call(now, "standard", Tokens(prompt=tokens)))[1]
            for tokens in (31_999, 32_000, 32_001)
        }
    assert found == {31_999: 31_999, 32_000: 96_000, 32_001: 96_003}
