"""Admission and money: what is held, what is refused, and the cap that would fit."""

from __future__ import annotations

import pytest

from portal.kit.money import parse_amount
from quotas.admission import AdmissionRow, Refusal, Verdict
from quotas.tests.doors import Connection, admit, admit_one, assert_refused, verdicts
from tests.database import Money, connected, money_of
from tests.factories import LineSpec, ModelFixture, admission_row, enable, make_model, make_tenant

HOLD = 100 * 1_000 + 100 * 2_000 + 2


def test_a_hold_covers_every_choice_and_the_dearest_line(dataplane: Connection, database: None) -> None:
    model = make_model(
        prices={"reasoning": 5 * 10**9, "cached_input": 10**8, "request": 7 * 10**6},
        lines=[
            LineSpec("input", 10**9, input_to_tokens=1_000),
            LineSpec("input", 3 * 10**9, input_from_tokens=1_000),
            LineSpec("output", 2 * 10**9),
        ],
    )
    tenant = make_tenant()
    enable(tenant, model)
    short = admit_one(dataplane, admission_row(tenant, model, prompt_bound_tokens=999, choices=3))
    long = admit_one(dataplane, admission_row(tenant, model, prompt_bound_tokens=1_000, choices=3))
    assert short.hold_nanos == 999 * 1_000 + 300 * 5_000 + 7 + 2
    assert long.hold_nanos == 1_000 * 3_000 + 300 * 5_000 + 7 + 2


def test_a_free_model_holds_nothing_and_is_admitted_without_money(
    dataplane: Connection, database: None
) -> None:
    model = make_model(prices={"input": 0, "output": 0})
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    assert admit_one(dataplane, admission_row(tenant, model)).hold_nanos == 0


def test_insufficient_funds_says_what_is_there_and_what_would_do(
    model: ModelFixture, dataplane: Connection
) -> None:
    tenant = make_tenant(granted="0.0005")
    enable(tenant, model)
    admitted = admit_one(dataplane, admission_row(tenant, model))
    assert admitted.verdict == Verdict.ADMITTED
    refused = assert_refused(dataplane, admission_row(tenant, model), Refusal.INSUFFICIENT_FUNDS)
    assert (refused.currency, refused.hold_nanos) == ("USD", HOLD)
    assert (refused.available_nanos, refused.pending_nanos) == (500_000 - HOLD, HOLD)
    # 199,998 nano-units are free; the prompt takes 100,000 and rounding 2, which leaves 49 tokens.
    assert refused.fit_output_tokens == 49


@pytest.mark.parametrize(
    ("granted", "input_price", "output_price", "choices", "prompt_bound_tokens"),
    [
        ("0.0005", 10**9, 2 * 10**9, 1, 100),
        ("0.000000007", 0, 1_000_000, 1, 0),
        ("0.000000008", 0, 1_000_000, 1, 0),
        ("0.001234567", 333_333_333, 777_777_777, 1, 1_001),
        ("0.001234567", 333_333_333, 777_777_777, 3, 1_001),
        ("0.000010001", 1, 33_337, 7, 5),
        ("0.9", 10**12, 999_999_999_999, 2, 17),
        ("0.9", 0, 1_000_000, 1, 0),
        ("0.000000010", 123, 999_999, 4, 9),
    ],
)
def test_the_cap_that_fits_is_exact(
    granted: str,
    input_price: int,
    output_price: int,
    choices: int,
    prompt_bound_tokens: int,
    dataplane: Connection,
    database: None,
) -> None:
    """That many output tokens are admitted with the same money, one more is not."""
    model = make_model(prices={"input": input_price, "output": output_price})
    tenant = make_tenant(granted=granted)
    enable(tenant, model)

    def call(output_cap_tokens: int) -> AdmissionRow:
        return admission_row(
            tenant,
            model,
            choices=choices,
            prompt_bound_tokens=prompt_bound_tokens,
            output_cap_tokens=output_cap_tokens,
        )

    refused = assert_refused(dataplane, call(2_000_000_000), Refusal.INSUFFICIENT_FUNDS)
    fits = refused.fit_output_tokens
    assert fits is not None
    assert fits > 0
    assert_refused(dataplane, call(fits + 1), Refusal.INSUFFICIENT_FUNDS)
    assert admit_one(dataplane, call(fits)).verdict == Verdict.ADMITTED


@pytest.mark.parametrize("output_price", [0, 10**9])
def test_nothing_fits_when_the_prompt_alone_is_too_dear(
    output_price: int, dataplane: Connection, database: None
) -> None:
    model = make_model(prices={"input": 10**9, "output": output_price})
    tenant = make_tenant(granted="0.0001")
    enable(tenant, model)
    row = admission_row(tenant, model, prompt_bound_tokens=1_000, output_cap_tokens=1)
    assert assert_refused(dataplane, row, Refusal.INSUFFICIENT_FUNDS).fit_output_tokens == 0


def test_an_overdraft_is_room(model: ModelFixture, dataplane: Connection) -> None:
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    with connected("operator") as operator:
        operator.execute(
            "UPDATE quotas_wallet SET overdraft_nanos = %s WHERE tenant_id = %s", (HOLD, tenant.id)
        )
    assert admit_one(dataplane, admission_row(tenant, model)).available_nanos == 0
    assert_refused(dataplane, admission_row(tenant, model), Refusal.INSUFFICIENT_FUNDS)


def test_a_refused_row_takes_no_room_from_the_rows_behind_it(
    model: ModelFixture, dataplane: Connection
) -> None:
    tenant = make_tenant(granted="0.00061")
    other = make_tenant(granted="0.0004")
    for each in (tenant, other):
        enable(each, model)
    rows = [
        admission_row(tenant, model, output_cap_tokens=10_000),
        admission_row(tenant, model, digest="00" * 32),
        admission_row(other, model),
        admission_row(tenant, model),
        admission_row(tenant, model),
        admission_row(other, model),
        admission_row(tenant, model),
        admission_row(tenant, model, prompt_bound_tokens=1, output_cap_tokens=2),
    ]
    answers = admit(dataplane, *rows)
    assert verdicts(answers) == [
        Verdict.REFUSED,
        Verdict.REFUSED,
        Verdict.ADMITTED,
        Verdict.ADMITTED,
        Verdict.ADMITTED,
        Verdict.REFUSED,
        Verdict.REFUSED,
        Verdict.ADMITTED,
    ]
    assert money_of(tenant.id).pending == 2 * HOLD + 5_002
    assert money_of(other.id).pending == HOLD


def test_money_is_text_in_the_factories_and_nano_units_in_the_database() -> None:
    paid_and_granted = make_tenant(granted="0.25", paid="12.000000001")
    assert money_of(paid_and_granted.id) == Money(paid=parse_amount("12.000000001"), granted=250_000_000)
