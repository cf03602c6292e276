"""Shares of tax: whatever goes back in whatever parts, all of it comes to what there was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quotas.payments.tax_shares import Shares, tax_beside_credit, tax_within_dispute, tax_within_refund

STEP = 10**7
coins = st.integers(1, 100_000)
taxes = st.integers(0, 30_000)
parts = st.lists(st.integers(1, 40_000), max_size=12)


def taken(shares: Shares, amount_nanos: int, tax_nanos: int) -> Shares:
    return Shares(
        shares.amount_nanos,
        shares.tax_nanos,
        shares.gone_amount_nanos + amount_nanos,
        shares.gone_tax_nanos + tax_nanos,
    )


@given(coins, taxes, parts)
def test_refunds_of_credit_take_their_tax_and_the_last_the_rest(
    amount: int, tax: int, wanted: list[int]
) -> None:
    shares = Shares(amount * STEP, tax * STEP)
    for part in (*wanted, amount):
        credit_nanos = min(part * STEP, shares.left_amount_nanos)
        if not credit_nanos:
            break
        share_nanos = tax_beside_credit(shares=shares, amount_nanos=credit_nanos, step_nanos=STEP)
        assert 0 <= share_nanos <= shares.left_tax_nanos
        assert share_nanos % STEP == 0
        shares = taken(shares, credit_nanos, share_nanos)
        # Never further than one coin from the exact share.
        exact = shares.tax_nanos * shares.gone_amount_nanos
        assert abs(shares.gone_tax_nanos * shares.amount_nanos - exact) <= STEP * shares.amount_nanos
    assert (shares.left_amount_nanos, shares.left_tax_nanos) == (0, 0)


@given(coins, taxes, parts)
def test_refunds_of_money_split_into_credit_and_tax(amount: int, tax: int, wanted: list[int]) -> None:
    shares = Shares(amount * STEP, tax * STEP)
    for part in (*wanted, amount + tax):
        gross_nanos = min(part * STEP, shares.left_amount_nanos + shares.left_tax_nanos)
        if not gross_nanos:
            break
        share_nanos = tax_within_refund(shares=shares, gross_nanos=gross_nanos, step_nanos=STEP)
        assert 0 <= share_nanos <= min(gross_nanos, shares.left_tax_nanos)
        assert gross_nanos - share_nanos <= shares.left_amount_nanos
        shares = taken(shares, gross_nanos - share_nanos, share_nanos)
    assert (shares.left_amount_nanos, shares.left_tax_nanos) == (0, 0)


@given(coins, taxes, st.lists(st.booleans(), max_size=10), st.data())
def test_credit_and_money_may_take_turns(
    amount: int, tax: int, by_credit: list[bool], data: st.DataObject
) -> None:
    shares = Shares(amount * STEP, tax * STEP)
    for is_credit in by_credit:
        if is_credit and shares.left_amount_nanos:
            credit_nanos = data.draw(st.integers(1, shares.left_amount_nanos // STEP)) * STEP
            share_nanos = tax_beside_credit(shares=shares, amount_nanos=credit_nanos, step_nanos=STEP)
        elif shares.left_amount_nanos + shares.left_tax_nanos:
            left = (shares.left_amount_nanos + shares.left_tax_nanos) // STEP
            gross_nanos = data.draw(st.integers(1, left)) * STEP
            share_nanos = tax_within_refund(shares=shares, gross_nanos=gross_nanos, step_nanos=STEP)
            credit_nanos = gross_nanos - share_nanos
        else:
            break
        shares = taken(shares, credit_nanos, share_nanos)
        assert shares.gone_amount_nanos <= shares.amount_nanos
        assert shares.gone_tax_nanos <= shares.tax_nanos


@given(coins, taxes, coins)
def test_a_dispute_gives_back_what_it_took(amount: int, tax: int, disputed: int) -> None:
    shares = Shares(amount * STEP, tax * STEP)
    share_nanos = tax_within_dispute(shares=shares, gross_nanos=disputed * STEP, step_nanos=STEP)
    assert 0 <= share_nanos <= min(shares.tax_nanos, disputed * STEP)
    assert tax_within_dispute(shares=shares, gross_nanos=-disputed * STEP, step_nanos=STEP) == -share_nanos
    assert tax_within_dispute(shares=shares, gross_nanos=shares.gross_nanos, step_nanos=STEP) == tax * STEP
