"""The floor's figures against a calculation by hand, and that what is not known is never a zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from portal.backoffice.floor.shown import blank_pool, blank_total, decimal_text, shown
from portal.backoffice.floor.state import Note, Place, pools_now, totals
from portal.inference.floor_meter import FloorFlow
from portal.kit.ids import uuid7
from quotas.business.floor import FloorBooks, FloorDeployment, FloorPool, Sold

AT = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
BIG = FloorDeployment(uuid7(), 4_000, input_weight=1_000, cached_weight=100, output_weight=4_000)
SMALL = FloorDeployment(uuid7(), 1_000, input_weight=500, cached_weight=50, output_weight=2_000)
BARE = FloorDeployment(uuid7())
FLOWS = {
    BIG.id: FloorFlow(300.0, 100.0, 150.0, live_calls=3),
    SMALL.id: FloorFlow(40.0, 0.0, 10.0, live_calls=1),
    BARE.id: FloorFlow(7.0, 2.0, 5.0, live_calls=2),
}
# 200 × 1 + 100 × 0.1 + 150 × 4 = 810, and 40 × 0.5 + 10 × 2 = 40.
WEIGHTED = 850.0


def make_pool(**values: object) -> FloorPool:
    known: dict[str, object] = {
        "currency": "USD",
        "cost_nanos_per_hour": 36_000_000_000,
        "deployments": (BIG, SMALL),
        "earned": {"USD": 40_000_000_001},
        # 2 million weighted tokens earned 12 dollars: 6 dollars a million.
        "sold": {"USD": Sold(12_000_000_000, 2_000_000_000)},
    }
    return FloorPool(uuid7(), "hall", "Hall", **(known | values))  # type: ignore[arg-type]


def books(*pools: FloorPool) -> FloorBooks:
    return FloorBooks(AT, pools)


def test_one_pool_by_hand() -> None:
    (now,) = pools_now(books(make_pool()), FLOWS)
    assert now.flow is not None
    assert now.flow.weighted == pytest.approx(WEIGHTED)
    assert (now.flow.input, now.flow.cached, now.flow.output, now.flow.live_calls) == (240, 100, 160, 4)
    assert now.capacity == 5_000
    assert now.share == pytest.approx(0.17)
    # At full capacity an hour sells 18 million weighted tokens for 108 dollars; 36 of them are a third.
    assert now.pool.breakeven_ppm == 333_333
    assert now.place is Place.BELOW
    assert now.pool.margin_nanos_per_hour == 4_000_000_001
    assert now.notes == ()


def test_a_pool_that_pays() -> None:
    (now,) = pools_now(books(make_pool(cost_nanos_per_hour=18_360_000_000)), FLOWS)
    assert now.pool.breakeven_ppm == 170_000
    assert now.place is Place.ABOVE


def test_without_a_capacity_nothing_is_weighed() -> None:
    (now,) = pools_now(books(make_pool(deployments=(BARE,))), FLOWS)
    assert now.flow is not None
    assert (now.flow.weighted, now.share, now.capacity, now.place) == (None, None, None, None)
    assert (now.flow.input, now.flow.live_calls) == (5, 2)
    assert now.notes == (Note.NO_CAPACITY,)
    (part,) = pools_now(books(make_pool(deployments=(BIG, SMALL, BARE))), FLOWS)
    assert part.flow is not None
    assert part.flow.weighted == pytest.approx(WEIGHTED)
    assert part.flow.output == 165
    assert part.notes == (Note.PART_CAPACITY,)


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        ({"deployments": ()}, (Note.NO_DEPLOYMENT,)),
        ({"currency": "", "cost_nanos_per_hour": None}, (Note.NO_COST,)),
        ({"sold": {}}, (Note.NOTHING_SOLD,)),
        # Free credit alone earns nothing.
        ({"sold": {"USD": Sold(0, 9_000)}}, (Note.NOTHING_SOLD,)),
        ({"sold": {"CNY": Sold(5, 9_000)}, "earned": {"CNY": 5}}, (Note.OTHER_CURRENCY,)),
        ({"cost_nanos_per_hour": 108_000_000_001}, ()),
        ({"cost_nanos_per_hour": 109_000_000_000}, (Note.BEYOND,)),
    ],
)
def test_what_is_missing_is_said(values: dict[str, object], notes: tuple[Note, ...]) -> None:
    (now,) = pools_now(books(make_pool(**values)), FLOWS)
    assert now.notes == notes
    if Note.BEYOND not in notes and notes:
        assert now.pool.breakeven_ppm is None


def test_nothing_is_converted() -> None:
    dollars = make_pool()
    mixed = make_pool(earned={"USD": 5, "CNY": 7})
    yuan = make_pool(currency="CNY", cost_nanos_per_hour=30, earned={"CNY": 20}, sold={})
    assert mixed.margin_nanos_per_hour is None
    sums = totals(pools_now(books(dollars, yuan), FLOWS))
    assert sums.margin == {"USD": 4_000_000_001, "CNY": -10}
    sums = totals(pools_now(books(dollars, mixed, yuan), FLOWS))
    assert sums.earned == {"USD": 40_000_000_006, "CNY": 27}
    assert sums.burned == {"USD": 72_000_000_000, "CNY": 30}
    assert sums.margin == {"USD": None, "CNY": None}
    # Nothing earned is known to be nothing; no cost is not.
    assert totals(pools_now(books(make_pool(earned={})), FLOWS)).earned == {"USD": 0}
    assert totals(pools_now(books(make_pool(currency="", cost_nanos_per_hour=None)), FLOWS)).burned == {}
    # What earns without a cost leaves the margin of its currency unknown, and no other.
    free = make_pool(currency="", cost_nanos_per_hour=None, earned={"CNY": 1})
    assert totals(pools_now(books(dollars, free), FLOWS)).margin == {"USD": 4_000_000_001, "CNY": None}


def test_no_zero_stands_for_what_is_not_known() -> None:
    pool = make_pool()
    state = shown(books(pool), None, at=AT)
    (row,) = state["pools"]
    assert state["flow"] == "unknown"
    assert {row["cells"][name] for name in ("now", "share", "input", "cached", "output", "calls")} == {"–"}
    assert (row["fill"], row["place"]) == (None, "")
    assert state["total"]["cells"]["now"] == "–"
    assert row["cells"]["capacity"] == "5,000"
    nothing = shown(None, FLOWS, at=AT)
    assert (nothing["books"], nothing["pools"], nothing["total"]) == ("unknown", [], blank_total())
    assert shown(books(pool), {}, at=AT + timedelta(seconds=16))["books"] == "stale"
    quiet = shown(books(pool), {}, at=AT)
    assert (quiet["books"], quiet["pools"][0]["cells"]["now"]) == ("fresh", "0.0")


def test_a_row_as_it_is_shown() -> None:
    (row,) = shown(books(make_pool()), FLOWS, at=AT)["pools"]
    assert row["cells"] == {
        "now": "850.0",
        "capacity": "5,000",
        "share": "17.0",
        "breakeven": "33.3",
        "input": "240.0",
        "cached": "100.0",
        "output": "160.0",
        "calls": "4",
    }
    assert (row["fill"], row["mark"], row["place"]) == ("17.000", "33.333", "below")
    (earned,), (burned,), (margin,) = (row["money"][name] for name in ("earned", "burned", "margin"))
    assert (earned["text"], earned["nanos"], earned["exact"]) == ("$40.0000", "40000000001", "40,000,000,001")
    assert (burned["text"], margin["text"]) == ("$36.0000", "+$4.0000")
    assert set(row) == set(blank_pool())
    assert set(row["cells"]) == set(blank_pool()["cells"])


def test_small_numbers_stay_numbers() -> None:
    assert [decimal_text(value) for value in (0, 0.001, 0.05, 0.06, 1234.56)] == [
        "0.0",
        "< 0.1",
        "0.1",
        "0.1",
        "1,234.6",
    ]
    (row,) = shown(books(make_pool(earned={"USD": 3})), {}, at=AT)["pools"]
    assert row["money"]["earned"][0]["text"] == "$0.000000003"


def test_pools_of_which_all_is_known_come_first() -> None:
    bare = make_pool(currency="", cost_nanos_per_hour=None)
    many = [make_pool() for _ in range(60)]
    state = shown(books(bare, *many), {}, at=AT)
    assert (len(state["pools"]), state["hidden"]) == (60, 1)
    assert "no_cost" not in {note for row in state["pools"] for note in row["notes"]}
