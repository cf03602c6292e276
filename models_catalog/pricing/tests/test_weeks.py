"""Weekly spans as people write them, and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_catalog.pricing.weeks import WEEK_MINUTES, Span, merged, parse_span, span_texts


@st.composite
def week_spans(draw: st.DrawFn) -> list[Span]:
    minute = st.one_of(
        st.integers(0, WEEK_MINUTES), st.integers(0, 7 * 24).map(lambda hour: hour * 60), st.just(0)
    )
    edges = sorted(draw(st.lists(minute, max_size=10, unique=True)))
    return [span for span in pairwise(edges) if draw(st.booleans())]


@given(spans=week_spans())
def test_what_is_written_down_is_read_back(spans: list[Span]) -> None:
    assert merged(part for text in span_texts(spans) for part in parse_span(text)) == merged(spans)


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["Mon-Fri 00:30-08:30"], ["Mon-Fri 00:30-08:30"]),
        (["Mon-Sun 22:00-06:00"], ["Mon-Sun 22:00-06:00"]),
        (["Sat 22:00-Sun 06:00"], ["Sat 22:00-06:00"]),
        (["Sat 00:00-Sun 24:00"], ["Sat 00:00-Sun 24:00"]),
        (["Fri 18:00-Mon 06:00"], ["Fri 18:00-Mon 06:00"]),
        (
            ["Tue 09:00-10:00", "Mon 09:00-10:00", "Mon 12:00-13:00"],
            ["Mon-Tue 09:00-10:00", "Mon 12:00-13:00"],
        ),
        (["Mon-Sun 00:00-24:00"], ["Mon-Sun 00:00-24:00"]),
        ([], []),
    ],
)
def test_times_are_written_as_people_write_them(texts: list[str], shown: list[str]) -> None:
    assert span_texts(part for text in texts for part in parse_span(text)) == shown
