"""Geometry of charts: scales, stacks, the rest as one, the table twin, and what the template writes."""

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from django.template.loader import render_to_string
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from portal.pages import charts
from portal.pages.charts import MAX_SERIES, PLOT_HEIGHT_PX, Chart, Series, Slot


def words(value: int) -> str:
    return f"{value:,}"


@pytest.fixture(autouse=True, scope="module")
def in_english() -> Iterator[None]:
    """Whatever language the last request of another test left behind."""
    with translation.override("en"):
        yield


def draw(*series: Series, slots: int = 3, area: bool = False, url: str = "") -> Chart:
    made = charts.filled_area if area else charts.stacked_bars
    return made(
        chart_id="c",
        title="Tokens",
        slots=[Slot(f"{hour:02}", f"{hour:02}:00 UTC", url) for hour in range(slots)],
        series=series,
        wording=words,
    )


@given(st.integers(min_value=1, max_value=9 * 10**18))
def test_ticks_cover_the_greatest_value_in_few_equal_steps(top: int) -> None:
    ticks = charts.nice_ticks(top)
    assert ticks[0] == 0
    assert ticks[-2] < top <= ticks[-1]
    assert 2 <= len(ticks) <= charts.MAX_TICKS + 1
    assert {later - earlier for earlier, later in pairwise(ticks)} == {ticks[1]}
    assert str(ticks[1]).rstrip("0") in {"1", "2", "5"}


def test_a_stack_is_as_high_as_its_sum() -> None:
    chart = draw(Series("a", (10, 0, 5)), Series("b", (30, 20, 0)))
    first = [bar for bar in chart.bars if bar.x_pct == chart.bars[0].x_pct]
    assert [bar.pattern for bar in first] == ["c-1", "c-2"]
    assert sum(float(bar.height_px) for bar in first) == pytest.approx(PLOT_HEIGHT_PX * 40 / 40)
    assert float(first[1].y_px) == pytest.approx(0)
    assert [entry.label for entry in chart.legend] == ["b", "a"]


def test_beyond_seven_the_rest_is_one_and_nothing_is_lost() -> None:
    chart = draw(*(Series(f"m{place}", (place, 0, 1)) for place in range(12)))
    assert len(chart.legend) == MAX_SERIES + 1
    assert chart.legend[-1].key == "other"
    assert chart.totals.cells[-1] == words(sum(range(12)) + 12)


def test_the_table_has_every_number_also_those_below_zero() -> None:
    chart = draw(Series("a", (1000, -7, 0)), Series("b", (1, 2, 3)))
    assert chart.columns == ("a", "b", "Total")
    assert [row.cells for row in chart.rows] == [("1,000", "1", "1,001"), ("-7", "2", "-5"), ("0", "3", "3")]
    assert chart.totals.cells == ("993", "6", "999")
    assert all(float(bar.height_px) > 0 for bar in chart.bars)


def test_titles_name_what_flowed_and_leave_out_what_did_not() -> None:
    chart = draw(Series("a", (5, 0, 1)), Series("b", (2, 0, 0)))
    assert chart.hits[0].title == "00:00 UTC · Total 7 · a 5 · b 2"
    assert chart.hits[2].title == "02:00 UTC · Total 1 · a 1"
    assert draw(Series("a", (5, 0, 1))).hits[0].title == "00:00 UTC · 5"


@pytest.mark.parametrize("area", [False, True])
def test_nothing_to_show_is_no_error(area: bool) -> None:
    assert draw(slots=0, area=area).is_empty
    assert draw(area=area).is_empty
    assert draw(Series("a", (0, 0, 0)), area=area).is_empty
    assert [tick.label for tick in draw(Series("a", (0, 0, 0)), area=area).ticks] == ["0", ""]
    assert not draw(Series("a", (0, 1, 0)), area=area).is_empty


def test_a_series_must_have_a_value_for_each_slot() -> None:
    with pytest.raises(ValueError, match="2 values for 3 slots"):
        draw(Series("a", (1, 2)))


def test_an_area_closes_and_has_no_bars() -> None:
    chart = draw(Series("a", (1, 2, 4)), area=True)
    assert not chart.bars
    assert chart.areas[0].path.endswith("Z")
    assert chart.areas[0].edge.startswith("M0 ")


def test_labels_are_few_and_fewer_where_it_is_narrow() -> None:
    labels = draw(Series("a", (1,) * 90), slots=90).labels
    assert len(labels) <= charts.MAX_X_LABELS
    assert sum(label.narrow for label in labels) <= charts.MAX_X_LABELS_NARROW


@pytest.mark.parametrize(
    ("values", "points"), [((), "0,31 100,31"), ((4,), "0,1 100,1"), ((0, 2, 1), "0,31 50,1 100,16")]
)
def test_sparklines_are_scaled_to_their_own_top(values: tuple[int, ...], points: str) -> None:
    assert charts.sparkline(values, title="t").points == points


@pytest.mark.parametrize("area", [False, True])
def test_the_template_needs_no_style_and_escapes_names(area: bool) -> None:
    chart = draw(Series('<b>"x"</b>', (1, 2, 3)), Series("b", (1, 2, 3)), area=area)
    html = render_to_string("components/chart.html", {"chart": chart})
    assert "style" not in html
    assert "<b>" not in html
    assert html.count("<title>") == len(chart.hits)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(re.findall(r'<pattern[^>]* id="([^"]+)"', html))
    assert html.count("<tr>") == len(chart.rows) + 2


def test_slots_with_an_address_are_links() -> None:
    html = render_to_string(
        "components/chart.html", {"chart": draw(Series("a", (1, 2, 3)), url="?hour=1&x=2")}
    )
    assert html.count('<a href="?hour=1&amp;x=2"') == 3
    assert 'role="group"' in html


def test_the_parts_of_a_flow_keep_their_order_whatever_their_size() -> None:
    made = charts.filled_area(
        chart_id="flow",
        title="Tokens",
        slots=[charts.Slot("00:00", "00:00 UTC")],
        series=[charts.Series("Input", (1,)), charts.Series("Output", (9,))],
        wording=str,
    )
    assert [one.label for one in made.legend] == ["Input", "Output"]


def test_pairs_stand_side_by_side_and_have_no_total() -> None:
    chart = charts.paired_bars(
        chart_id="c",
        title="Revenue and cost",
        slots=[Slot("a", "day a"), Slot("b", "day b")],
        pairs=[[Series("earned", (40, 0))], [Series("sold", (10, 5)), Series("idle", (30, 15))]],
        wording=words,
    )
    earned, *spent = [bar for bar in chart.bars if float(bar.x_pct) < 50]
    assert float(earned.x_pct) + float(earned.width_pct) == pytest.approx(float(spent[0].x_pct))
    assert [bar.pattern for bar in (earned, *spent)] == ["c-1", "c-2", "c-3"]
    # As high as each other, because 40 is 10 + 30.
    assert float(earned.height_px) == sum(float(bar.height_px) for bar in spent) == PLOT_HEIGHT_PX
    assert chart.columns == ("earned", "sold", "idle")
    assert chart.rows[1].cells == ("0", "5", "15")
    assert chart.totals.cells == ("40", "15", "45")
    assert chart.hits[0].title == "day a · earned 40 · sold 10 · idle 30"
    assert not chart.is_empty
    assert render_to_string("components/chart.html", {"chart": chart})


def test_pairs_need_a_value_for_each_slot_too() -> None:
    with pytest.raises(ValueError, match="values for"):
        charts.paired_bars(
            chart_id="c", title="t", slots=[Slot("a", "a")], pairs=[[Series("x", ())]], wording=words
        )
