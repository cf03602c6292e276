"""When a price counts as dearer: pure comparisons, and a search through everything as their reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from models_catalog.pricing.compare import compare, price_at, window_at
from models_catalog.pricing.content import CLASS_ORDER, PriceContent, PriceLineContent, gaps
from models_catalog.pricing.tests.shops import line
from models_catalog.pricing.weeks import parse_span

CONTEXT = 100


def content(*lines: PriceLineContent, time_zone: str = "UTC", **windows: str) -> PriceContent:
    parts = frozenset((name, tuple(parse_span(text))) for name, text in windows.items())
    return PriceContent(time_zone, parts, frozenset(lines))


FLAT = content(line("input", 10), line("output", 20))


def test_equal_and_cheaper_prices_are_no_increase() -> None:
    assert compare(FLAT, FLAT, max_input_tokens=CONTEXT) == []
    cheaper = content(line("input", 9), line("output", 20), line("cached_input", 1))
    assert compare(cheaper, FLAT, max_input_tokens=CONTEXT) == []
    assert compare(FLAT, None, max_input_tokens=CONTEXT) == []


def test_each_class_counts_with_what_it_falls_back_to() -> None:
    [cached] = compare(
        FLAT,
        content(line("input", 10), line("output", 20), line("cached_input", 1)),
        max_input_tokens=CONTEXT,
    )
    assert (cached.token_class, cached.old_nanos, cached.new_nanos) == ("cached_input", 1, 10)
    found = compare(content(line("input", 11), line("output", 20)), FLAT, max_input_tokens=CONTEXT)
    assert [each.token_class for each in found] == ["input", "cached_input", "image"]
    [request] = compare(
        content(line("input", 10), line("output", 20), line("request", 1)), FLAT, max_input_tokens=CONTEXT
    )
    assert (request.token_class, request.old_nanos, request.new_nanos) == ("request", 0, 1)


def test_a_band_that_no_call_reaches_does_not_count() -> None:
    def long_inputs_cost(price: int, border: int) -> PriceContent:
        return content(
            line("input", 10, input_to_tokens=border),
            line("input", price, input_from_tokens=border),
            line("output", 20),
        )

    [first, *_] = compare(long_inputs_cost(11, 100), FLAT, max_input_tokens=CONTEXT)
    assert (first.from_tokens, first.to_tokens) == (100, None)
    assert compare(long_inputs_cost(11, 101), FLAT, max_input_tokens=CONTEXT) == []


def test_moving_a_band_is_dearer_between_the_borders() -> None:
    def banded(border: int) -> PriceContent:
        return content(
            line("input", 10, input_to_tokens=border),
            line("input", 30, input_from_tokens=border),
            line("output", 20),
        )

    [first, *_] = compare(banded(40), banded(60), max_input_tokens=CONTEXT)
    assert (first.from_tokens, first.to_tokens, first.old_nanos, first.new_nanos) == (40, 60, 10, 30)


def test_a_shorter_night_is_dearer_at_its_edge() -> None:
    lines = (line("input", 10), line("input", 5, window="night"), line("output", 20))
    old = content(*lines, night="Mon-Sun 22:00-06:00")
    new = content(*lines, night="Mon-Sun 23:00-06:00")
    [first, *_] = compare(new, old, max_input_tokens=CONTEXT)
    assert (first.minute, first.old_window, first.new_window) == (22 * 60, "night", None)
    assert compare(old, new, max_input_tokens=CONTEXT) == []


def test_other_time_zones_are_compared_as_if_any_windows_met() -> None:
    lines = (line("input", 10), line("input", 5, window="night"), line("output", 20))
    old = content(*lines, night="Mon-Sun 22:00-06:00")
    elsewhere = replace(old, time_zone="Europe/Berlin")
    assert compare(elsewhere, old, max_input_tokens=CONTEXT)
    whole_week = content(
        line("input", 10, window="all"), line("input", 99), line("output", 20), all="Mon-Sun 00:00-24:00"
    )
    moved = replace(whole_week, time_zone="Europe/Berlin")
    assert compare(moved, whole_week, max_input_tokens=CONTEXT) == []


def test_a_tier_or_a_model_without_a_price_is_refused_calls() -> None:
    both = content(
        *FLAT.lines, line("input", 1, service_tier="batch"), line("output", 1, service_tier="batch")
    )
    found = compare(FLAT, both, max_input_tokens=CONTEXT)
    assert [(each.service_tier, each.new_nanos) for each in found] == [("batch", None), ("batch", None)]
    assert {each.new_nanos for each in compare(None, FLAT, max_input_tokens=CONTEXT)} == {None}


_prices = st.integers(0, 4)
_edges = st.lists(st.integers(1, CONTEXT + 5), max_size=2, unique=True).map(sorted)


@st.composite
def contents(draw: st.DrawFn) -> PriceContent:
    lines: list[PriceLineContent] = []
    further = st.tuples(st.sampled_from(CLASS_ORDER), st.sampled_from([None, "night"]))
    for token_class, name in dict.fromkeys(
        [("input", None), ("output", None), *draw(st.lists(further, max_size=4))]
    ):
        bounds = [0, *draw(_edges), None]
        for start, end in pairwise(bounds):
            assert start is not None
            fields = {"window": name, "input_from_tokens": start, "input_to_tokens": end}
            lines.append(line(token_class, draw(_prices), **fields))
    hour = draw(st.integers(0, 22))
    return content(*lines, night=f"Mon-Sun {hour:02d}:00-23:00")


@given(new=contents(), old=contents())
@settings(deadline=None, max_examples=60)
def test_an_increase_is_found_wherever_a_call_can_land(new: PriceContent, old: PriceContent) -> None:
    assert gaps(new.lines) == gaps(old.lines) == []
    dearer = {
        (token_class, tokens)
        for token_class in CLASS_ORDER
        for tokens in range(CONTEXT + 1)
        for hour in range(24)
        if (price_at(tuple(new.lines), "standard", window_at(new, hour * 60), token_class, tokens) or 0)
        > (price_at(tuple(old.lines), "standard", window_at(old, hour * 60), token_class, tokens) or 0)
    }
    found = {
        (each.token_class, tokens)
        for each in compare(new, old, max_input_tokens=CONTEXT)
        for tokens in range(each.from_tokens, each.to_tokens or CONTEXT + 1)
        if tokens <= CONTEXT
    }
    assert found == dearer


def test_what_is_dearer_at_all_times_names_no_time() -> None:
    windows = {"night": "Mon-Sun 22:00-06:00"}
    old = content(line("input", 10), line("input", 5, window="night"), line("output", 20), **windows)
    new = content(line("input", 10), line("input", 6, window="night"), line("output", 21), **windows)
    by_class = {each.token_class: each for each in compare(new, old, max_input_tokens=CONTEXT)}
    assert (by_class["input"].new_window, by_class["input"].minute) == ("night", 0)
    assert (by_class["output"].new_window, by_class["output"].minute) == (None, None)
