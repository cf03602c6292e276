"""The pricing functions in SQL against the same rules written plainly in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.tests.price_drafts import (
    CLASSES,
    MAX_TOKENS,
    OUTPUT_CLASSES,
    PROMPT_CLASSES,
    WINDOWS,
    Draft,
    Line,
    amounts,
    make_draft,
    price_lines,
    query,
    undone,
)

pytestmark = pytest.mark.usefixtures("database")

# What a class without a line of its own is charged as.
CONTAINED_IN = {"cached_input": "input", "image": "input", "reasoning": "output"}


@dataclass(frozen=True, slots=True)
class Usage:
    """What was measured, in tokens: cached and image lie within prompt, reasoning within completion."""

    prompt: int
    cached: int
    image: int
    completion: int
    reasoning: int


def reference_price(
    lines: Sequence[Line], tier: str, window: str | None, token_class: str, prompt: int
) -> int | None:
    for candidate in (token_class, CONTAINED_IN.get(token_class)):
        fitting = [
            line
            for line in lines
            if line.token_class == candidate
            and line.tier == tier
            and line.window in (None, window)
            and line.start <= prompt
            and (line.end is None or prompt < line.end)
        ]
        if fitting:
            return max(fitting, key=lambda line: line.window is not None).price
    return None


def reference_line_cost(units: int, price: int) -> int:
    return floor(Fraction(units * price, 10**6) + Fraction(1, 2))


def reference_cost(lines: Sequence[Line], tier: str, window: str | None, usage: Usage) -> int:
    units = {
        "input": usage.prompt - usage.cached - usage.image,
        "cached_input": usage.cached,
        "image": usage.image,
        "output": usage.completion - usage.reasoning,
        "reasoning": usage.reasoning,
        "request": 1,
    }
    total = 0
    for token_class, count in units.items():
        price = reference_price(lines, tier, window, token_class, usage.prompt)
        assert price is not None or count == 0 or token_class == "request"
        total += reference_line_cost(count, price or 0)
    return total


def reference_hold_prices(
    lines: Sequence[Line], tier: str, window: str | None, bound: int
) -> tuple[int, int, int]:
    """The dearest price of prompt, output and request over every input length that makes a difference."""
    edges = {0, bound, *(line.start for line in lines), *(line.end for line in lines if line.end is not None)}
    lengths = [length for edge in edges for length in (edge - 1, edge, edge + 1) if 0 <= length <= bound]

    def dearest(classes: Sequence[str]) -> int:
        prices = [
            reference_price(lines, tier, window, each, length) for each in classes for length in lengths
        ]
        return max(price or 0 for price in prices)

    return dearest(PROMPT_CLASSES), dearest(OUTPUT_CLASSES), dearest(["request"])


def reference_hold(bound: int, output_bound: int, prices: tuple[int, int, int]) -> int:
    prompt_price, output_price, request_price = prices
    return (
        ceil(Fraction(bound * prompt_price, 10**6))
        + ceil(Fraction(output_bound * output_price, 10**6))
        + reference_line_cost(1, request_price)
        + (prompt_price > 0)
        + (output_price > 0)
    )


def interesting_lengths(lines: Sequence[Line]) -> st.SearchStrategy[int]:
    """Token counts, often just at or beside the border of a band."""
    edges = sorted({edge for line in lines for edge in (line.start, line.end) if edge is not None})
    beside = st.tuples(st.sampled_from(edges), st.integers(-1, 1)).map(lambda pair: max(0, sum(pair)))
    return st.one_of(beside, st.integers(0, 30), st.integers(0, MAX_TOKENS))


@st.composite
def usages(draw: st.DrawFn, prompts: st.SearchStrategy[int], max_completion: int = MAX_TOKENS) -> Usage:
    prompt = draw(prompts)
    cached = draw(st.integers(0, prompt))
    image = draw(st.integers(0, prompt - cached))
    completion = draw(st.one_of(st.just(max_completion), st.integers(0, max_completion)))
    return Usage(prompt, cached, image, completion, draw(st.integers(0, completion)))


def sql_cost(draft: Draft, tier: str, window: str | None, usage: Usage) -> int | None:
    sql = "SELECT catalog_usage_cost(%s, %s, %s, %s, %s, %s, %s, %s)"
    counts = (usage.prompt, usage.cached, usage.image, usage.completion, usage.reasoning)
    [(cost,)] = query(sql, [draft.version_id, tier, draft.window_ids.get(window or ""), *counts])
    return None if cost is None else int(cost)


def sql_hold(
    draft: Draft, tier: str, window: str | None, bound: int, output_bound: int
) -> tuple[int | None, ...]:
    """The three prices of a hold, and its amount."""
    sql = (
        "SELECT p.*, catalog_hold_amount(%s, %s, p.prompt_price, p.output_price, p.request_price) "
        "FROM catalog_hold_prices(%s, %s, %s, %s) p"
    )
    window_id = draft.window_ids.get(window or "")
    [row] = query(sql, [bound, output_bound, draft.version_id, tier, window_id, bound])
    return row


windows = st.sampled_from([None, *WINDOWS])


def tiers_of(lines: Sequence[Line]) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted({line.tier for line in lines}))


@given(units=st.integers(0, 128 * MAX_TOKENS), price=amounts)
@example(units=1, price=500_000)
@example(units=1, price=499_999)
@example(units=3, price=500_000)
@example(units=128 * MAX_TOKENS, price=MAX_PRICE_NANOS_PER_MILLION)
@settings(deadline=None)
def test_a_line_rounds_half_up_exactly(units: int, price: int) -> None:
    [(cost, ceiling)] = query(
        "SELECT catalog_line_cost(%s, %s), catalog_line_ceiling(%s, %s)", [units, price, units, price]
    )
    assert cost == reference_line_cost(units, price)
    assert ceiling == ceil(Fraction(units * price, 10**6))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_usage_costs_what_its_lines_say(data: st.DataObject) -> None:
    lines = data.draw(price_lines())
    with undone():
        draft = make_draft(lines)
        for _ in range(4):
            tier, window = data.draw(tiers_of(lines)), data.draw(windows)
            usage = data.draw(usages(interesting_lengths(lines)))
            assert sql_cost(draft, tier, window, usage) == reference_cost(lines, tier, window, usage)
            chosen = query(
                "SELECT token_class, price_nanos_per_million FROM catalog_chosen_lines(%s, %s, %s, %s)",
                [draft.version_id, tier, draft.window_ids.get(window or ""), usage.prompt],
            )
            expected = {each: reference_price(lines, tier, window, each, usage.prompt) for each in CLASSES}
            assert dict(chosen) == {each: price for each, price in expected.items() if price is not None}


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_no_usage_within_the_bounds_costs_more_than_the_hold(data: st.DataObject) -> None:
    lines = data.draw(price_lines())
    with undone():
        draft = make_draft(lines)
        tier, window = data.draw(tiers_of(lines)), data.draw(windows)
        bound = data.draw(interesting_lengths(lines))
        output_bound = data.draw(st.one_of(st.integers(0, 5), st.integers(0, MAX_TOKENS)))
        *prices, hold = sql_hold(draft, tier, window, bound, output_bound)
        expected = reference_hold_prices(lines, tier, window, bound)
        assert tuple(prices) == expected
        assert hold is not None
        assert hold == reference_hold(bound, output_bound, expected)
        within = interesting_lengths(lines).map(lambda prompt: min(prompt, bound))
        for usage in data.draw(st.lists(usages(within, output_bound), min_size=1, max_size=6)):
            cost = sql_cost(draft, tier, window, usage)
            assert cost is not None
            assert cost <= hold


def test_the_hold_is_reached_when_every_class_rounds_up() -> None:
    """Three prompt classes of half a nano-unit each: one less in the hold would be too little."""
    with undone():
        draft = make_draft([Line("input", 500_000), Line("output", 500_000)])
        usage = Usage(prompt=3, cached=1, image=1, completion=2, reasoning=1)
        assert sql_cost(draft, "standard", None, usage) == 5
        *_, hold = sql_hold(draft, "standard", None, 3, 2)
        assert hold == 5


def test_the_border_of_a_band_belongs_to_the_dearer_side_only() -> None:
    lines = [
        Line("input", 10**6, end=128_000),
        Line("input", 2 * 10**6, start=128_000),
        Line("output", 0),
    ]
    with undone():
        draft = make_draft(lines)
        assert sql_cost(draft, "standard", None, Usage(127_999, 0, 0, 0, 0)) == 127_999
        assert sql_cost(draft, "standard", None, Usage(128_000, 0, 0, 0, 0)) == 256_000
        assert sql_hold(draft, "standard", None, 127_999, 0) == (10**6, 0, 0, 128_000)
        assert sql_hold(draft, "standard", None, 128_000, 0) == (2 * 10**6, 0, 0, 256_001)


def test_the_hold_covers_a_cheaper_end_of_the_context() -> None:
    """A short prompt may be dearer than a long one: the bound says at most, not exactly."""
    lines = [Line("input", 9 * 10**6, end=10), Line("input", 10**6, start=10), Line("output", 0)]
    with undone():
        draft = make_draft(lines)
        assert sql_hold(draft, "standard", None, 1000, 0)[0] == 9 * 10**6


def test_the_hold_covers_the_input_length_at_which_a_window_line_ends() -> None:
    lines = [Line("input", 9 * 10**6), Line("input", 10**6, window="night", end=10), Line("output", 0)]
    with undone():
        draft = make_draft(lines)
        assert sql_hold(draft, "standard", "night", 9, 0)[0] == 10**6
        assert sql_hold(draft, "standard", "night", 10, 0)[0] == 9 * 10**6


def test_the_hold_covers_a_line_that_begins_at_the_bound() -> None:
    lines = [Line("input", 10**6), Line("image", 9 * 10**6, start=10), Line("output", 0)]
    with undone():
        draft = make_draft(lines)
        assert sql_hold(draft, "standard", None, 9, 0)[0] == 10**6
        assert sql_hold(draft, "standard", None, 10, 0)[0] == 9 * 10**6


def test_the_class_decides_before_the_window() -> None:
    lines = [
        Line("input", 4 * 10**6),
        Line("cached_input", 3 * 10**6),
        Line("input", 10**6, window="night"),
        Line("output", 0),
    ]
    with undone():
        draft = make_draft(lines)
        usage = Usage(prompt=2, cached=1, image=1, completion=0, reasoning=0)
        # The cached token keeps its own line at night; the image token follows the input.
        assert sql_cost(draft, "standard", "night", usage) == 3 + 1
        assert sql_cost(draft, "standard", None, usage) == 3 + 4


def test_a_tier_without_lines_has_no_price() -> None:
    with undone():
        draft = make_draft([Line("input", 1), Line("output", 1)])
        assert sql_cost(draft, "batch", None, Usage(1, 0, 0, 1, 0)) is None
        assert sql_hold(draft, "batch", None, 10, 10)[:2] == (None, None)
