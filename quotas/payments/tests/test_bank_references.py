"""Transfer references: what a slip of the pen makes of one is no reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.payments.bank_references import SIGNS, find_references, is_reference, spell_reference
from tests.database import connected

signs = st.text(SIGNS, min_size=6, max_size=6)


@given(signs)
def test_every_reference_is_found_however_it_is_written(text: str) -> None:
    reference = spell_reference(text)
    assert is_reference(reference)
    assert find_references(reference) == [reference]
    for written in (
        reference.lower(),
        reference.replace("-", ""),
        reference.replace("-", " / "),
        f"/ROC/{reference}//URI/Invoice 17",
        f"payment {' '.join(reference.replace('-', ''))}, thanks",
        f"{reference}\n{reference}",
    ):
        assert find_references(written) == [reference], written


@given(signs, st.data())
def test_one_wrong_sign_is_noticed(text: str, data: st.DataObject) -> None:
    reference = spell_reference(text)
    place = data.draw(st.sampled_from([2, 3, 5, 6, 7, 8, 10, 11]))
    possible = SIGNS if place < 9 else "0123456789"
    sign = data.draw(st.sampled_from([one for one in possible if one != reference[place]]))
    assert not is_reference(reference[:place] + sign + reference[place + 1 :])


@given(signs, st.integers(2, 7))
def test_two_signs_that_changed_places_are_noticed(text: str, place: int) -> None:
    plain = spell_reference(text).replace("-", "")
    swapped = plain[:place] + plain[place + 1] + plain[place] + plain[place + 2 :]
    if swapped != plain:
        spelled = f"{swapped[:4]}-{swapped[4:8]}-{swapped[8:]}"
        assert not is_reference(spelled)


@given(st.text(max_size=200))
def test_any_text_can_be_looked_through(text: str) -> None:
    assert all(is_reference(one) for one in find_references(text))


@pytest.mark.usefixtures("database")
def test_the_database_checks_the_same() -> None:
    texts = [spell_reference(one) for one in ("222222", "ZYXWVT", "A2B3C4")]
    with connected("operator") as connection:
        for reference in texts:
            for check in range(100):
                spelled = f"{reference[:-2]}{check:02d}"
                row = connection.execute("SELECT quotas_reference_checks(%s)", (spelled,)).fetchone()
                assert row is not None
                assert row[0] is is_reference(spelled)
