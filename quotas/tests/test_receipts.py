"""A receipt explains a charge to the nano-unit, with the ledger's own numbers."""

from __future__ import annotations

import msgspec
import pytest

from portal.kit.ids import transfer_id, uuid7
from quotas.admission import open_attempt
from quotas.metering.queries import RequestNotFound, request_receipt
from quotas.models import AttemptOutcome, Basis
from quotas.settlement import AttemptEnd
from quotas.tests.doors import (
    Connection,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle_one,
    sweep_row,
)
from quotas.tests.usage_rows import settled
from tenants.scope import tenant_scope
from tests.database import blocking
from tests.factories import (
    LineSpec,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)

AWKWARD = {"input": 333_333_333, "cached_input": 33_333_337, "output": 1_234_567_891, "request": 5_000_000}


@pytest.fixture
def payer(database: None) -> TenantFixture:
    return make_tenant(granted="0.000005", paid="1.00")


def test_the_lines_are_the_charge(payer: TenantFixture, dataplane: Connection) -> None:
    model = make_model(prices=AWKWARD)
    enable(payer, model)
    request_id = settled(
        dataplane, payer, model, prompt_tokens=11, cached_tokens=4, completion_tokens=7, reasoning_tokens=2
    )
    with tenant_scope(payer.id):
        receipt = request_receipt(tenant_id=payer.id, request_id=request_id)
    (revision,) = receipt.revisions
    assert [
        (line.token_class, line.line_class, line.units, line.amount_nanos) for line in revision.lines
    ] == [
        ("input", "input", 7, 2_333),
        ("cached_input", "cached_input", 4, 133),
        ("output", "output", 5, 6_173),
        # Without a price of its own, reasoning costs what output does.
        ("reasoning", "output", 2, 2_469),
        ("request", "request", 1, 5),
    ]
    assert revision.adds_up
    assert revision.lines[0].rounding_millionths == 2_333 * 10**6 - 7 * 333_333_333
    assert all(abs(line.rounding_millionths) <= 500_000 for line in revision.lines)
    assert (revision.cost_nanos, revision.charged_nanos, revision.overrun_nanos) == (11_113, 11_113, 0)
    assert (revision.granted_nanos, revision.paid_nanos, revision.receivable_nanos) == (5_000, 6_113, 0)
    assert revision.transfer is not None
    assert revision.transfer.id == transfer_id("USAGE", f"{request_id}:1")
    assert revision.transfer.amounts == (("GRANTED", -5_000), ("TOPPED_UP", -6_113))
    assert receipt.witnesses == ("GATEWAY",)
    assert (receipt.hold.state, receipt.hold.resolved_by) == ("POSTED", "GATEWAY")
    assert (receipt.price.id, receipt.price.is_private) == (model.price_version_id, False)
    assert (receipt.price.service_tier, receipt.price.window) == ("standard", None)


def test_the_band_that_was_chosen_shows(payer: TenantFixture, dataplane: Connection) -> None:
    bands = [LineSpec("input", 10**9, input_to_tokens=20), LineSpec("input", 3 * 10**9, input_from_tokens=20)]
    model = make_model(prices={"output": 10**9}, lines=bands)
    enable(payer, model)
    request_id = settled(dataplane, payer, model, prompt_tokens=20)
    with tenant_scope(payer.id):
        line = request_receipt(tenant_id=payer.id, request_id=request_id).revisions[0].lines[0]
    assert (line.input_from_tokens, line.input_to_tokens, line.amount_nanos) == (20, None, 60_000)


def test_every_revision_and_who_brought_it(payer: TenantFixture, dataplane: Connection) -> None:
    model = make_model()
    enable(payer, model)
    row = admitted(dataplane, admission_row(payer, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 3))
    end_lease(row)
    settle_one(dataplane, sweep_row(row))
    settle_one(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=8))
    with tenant_scope(payer.id):
        receipt = request_receipt(tenant_id=payer.id, request_id=row.request_id)
    first, second = receipt.revisions
    assert receipt.witnesses == ("SWEEPER", "GATEWAY")
    assert (first.provenance, first.charged_nanos, second.provenance, second.charged_nanos) == (
        "ESTIMATED",
        16_000,
        "MEASURED",
        26_000,
    )
    assert first.adds_up
    assert second.adds_up
    assert second.transfer is not None
    assert sum(amount for _, amount in second.transfer.amounts) == -10_000
    assert receipt.hold.state == "EXPIRED"


def test_nothing_delivered_is_nothing_charged(payer: TenantFixture, dataplane: Connection) -> None:
    """Not even the price by the request, also when a later witness says so."""
    model = make_model(prices=AWKWARD)
    enable(payer, model)
    void = admitted(dataplane, admission_row(payer, model))
    settle_one(dataplane, void_row(void))
    late = admitted(dataplane, admission_row(payer, model))
    checkpoint(dataplane, checkpoint_row(late, 10, 3))
    end_lease(late)
    settle_one(dataplane, sweep_row(late))
    settle_one(dataplane, settlement_row(late, basis=Basis.NOTHING))
    with tenant_scope(payer.id):
        nothing = request_receipt(tenant_id=payer.id, request_id=void.request_id)
        taken_back = request_receipt(tenant_id=payer.id, request_id=late.request_id)
    assert (nothing.revisions, nothing.hold.state) == ((), "VOIDED")
    last = taken_back.revisions[-1]
    assert (last.lines, last.cost_nanos, last.adds_up) == ((), 0, True)
    assert last.transfer is not None
    assert sum(amount for _, amount in last.transfer.amounts) == taken_back.revisions[0].charged_nanos


def test_attempts_are_a_waterfall_without_names(payer: TenantFixture, dataplane: Connection) -> None:
    model, elsewhere = make_model(), make_model()
    enable(payer, model)
    row = admitted(dataplane, admission_row(payer, model))
    again = [uuid7(), uuid7()]
    for ordinal, (attempt_id, place) in enumerate(zip(again, (elsewhere, model), strict=True), start=2):
        assert blocking(
            open_attempt,
            dataplane,
            attempt_id=attempt_id,
            request_id=row.request_id,
            deployment_id=place.deployment_id,
            choice_index=0,
            ordinal=ordinal,
        )
    with tenant_scope(payer.id):
        running = request_receipt(tenant_id=payer.id, request_id=row.request_id)
    ends = [
        AttemptEnd(id=row.attempt_id, outcome=AttemptOutcome.UNREACHABLE, duration_ms=5),
        AttemptEnd(id=again[0], outcome=AttemptOutcome.BACKEND_FAILED, http_status=503, duration_ms=6),
        AttemptEnd(
            id=again[1],
            outcome=AttemptOutcome.COMPLETED,
            http_status=200,
            ttft_ms=3,
            duration_ms=9,
            prompt_tokens=10,
            completion_tokens=5,
        ),
    ]
    settlement = settlement_row(row, prompt_tokens=10, completion_tokens=5)
    settle_one(dataplane, msgspec.structs.replace(settlement, attempts=ends))
    with tenant_scope(payer.id):
        bars = request_receipt(tenant_id=payer.id, request_id=row.request_id).attempts
    assert [bar.outcome for bar in running.attempts] == [None, None, None]
    assert running.hold.state == "PENDING"
    assert [(bar.ordinal, bar.backend, bar.outcome, bar.http_status) for bar in bars] == [
        (1, 1, "UNREACHABLE", None),
        (2, 2, "BACKEND_FAILED", 503),
        (3, 1, "COMPLETED", 200),
    ]
    assert bars[0].offset_ms == 0
    assert [bar.offset_ms for bar in bars] == sorted(bar.offset_ms for bar in bars)
    assert (bars[2].ttft_ms, bars[2].duration_ms, bars[2].completion_tokens) == (3, 9, 5)


def test_others_calls_do_not_exist(payer: TenantFixture, dataplane: Connection) -> None:
    model = make_model()
    enable(payer, model)
    request_id = settled(dataplane, payer, model)
    other = make_tenant()
    with tenant_scope(other.id):
        for tenant_id in (other.id, payer.id):
            with pytest.raises(RequestNotFound):
                request_receipt(tenant_id=tenant_id, request_id=request_id)
        with pytest.raises(RequestNotFound):
            request_receipt(tenant_id=other.id, request_id=uuid7())
