"""Text that people chose does nothing in a spreadsheet."""

from __future__ import annotations

import pytest

from quotas.csv_text import safe_text


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
)
def test_what_a_spreadsheet_takes_for_a_formula_becomes_text(start: str) -> None:
    """Spreadsheets of Chinese and Japanese readers know the wide signs too."""
    assert safe_text(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("text", ["", "prod", "1=1", "数据"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text
