"""The estimate of a text's tokens: fast, and the same as taking the text apart."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from quotas.metering.facts import estimate_tokens

PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]")


@given(text=st.text() | st.text("aZ9. \n\x1c\x85\xa0\u1680\u200b\u2003\u2028\u3000é字😀", max_size=200))
def test_the_estimate_counts_words_digits_and_signs(text: str) -> None:
    assert estimate_tokens(text) == sum(1 + len(piece) // 8 for piece in PIECE.findall(text))


def test_megabytes_are_estimated_at_once() -> None:
    text = "中文字, and words 123. " * 400_000
    started_s = time.process_time()
    assert estimate_tokens(text) > 10**6
    assert time.process_time() - started_s < 1
