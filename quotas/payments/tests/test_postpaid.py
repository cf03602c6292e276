"""A month on the moved clock: usage, late settlements, an invoice, a failed payment, dunning, suspension,
payment and return. Every line of the invoices adds up from usage rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devstack.stripe_standin.testing import Standin, running_standin
from portal.kit.ids import transfer_id
from portal.kit.money import to_minor_units
from quotas.admission import Refusal, Verdict
from quotas.models import DunningState, MonthlyInvoiceState, MonthlyLineKind, TransferKind
from quotas.payments.postpaid import draw_up_invoices, remind_overdue
from quotas.payments.tests.postpaid_side import (
    DAY,
    after_month,
    broken_invariants,
    client_of,
    dear_model,
    invoices_of,
    lines_of,
    make_postpaid,
    move_clock,
    no_lag,
    pay,
    tell,
    usage_of,
    used_by,
    wallet_of,
)
from quotas.payments.tests.stripe_side import configure
from quotas.tests.doors import (
    Connection,
    admit_one,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle_one,
    sweep_row,
)
from tenants.models import TenantState
from tests.database import connected, rows_of
from tests.factories import admission_row, settlement_row, void_row


@pytest.fixture(scope="module")
def own_standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    """Of this module: its clock is moved."""
    with running_standin(tmp_path_factory.mktemp("postpaid")) as running:
        yield running


@pytest.fixture
def moved(own_standin: Standin, database: None, monkeypatch: pytest.MonkeyPatch) -> Standin:
    configure(monkeypatch, own_standin)
    no_lag(monkeypatch)
    return own_standin


@pytest.fixture
def dataplane(database: None) -> Iterator[Connection]:
    with connected("dataplane") as connection:
        yield connection


def state_of(tenant_id: object) -> tuple[str, str]:
    (row,) = rows_of("tenants_tenant", id=tenant_id)
    return row["state"], row["suspension_cause"]


def test_a_month_on_the_moved_clock(moved: Standin, dataplane: Connection) -> None:
    plain, other = dear_model(), dear_model(cancel_policy="INPUT")
    tenant = make_postpaid(plain, other, granted="0.05")
    calls = []
    for number in range(12):
        model = (plain, other)[number % 2]
        row = admitted(
            dataplane, admission_row(tenant, model, prompt_bound_tokens=9_000, output_cap_tokens=900)
        )
        outcome = "CLIENT_GONE" if number % 5 == 4 else "COMPLETED"
        settle_one(
            dataplane,
            settlement_row(
                row,
                prompt_tokens=5_000 + 7 * number,
                cached_tokens=1_003 * (number % 3),
                completion_tokens=400 + 11 * number,
                reasoning_tokens=50 * (number % 4),
                outcome=outcome,
            ),
        )
        calls.append(row)
    nothing = admitted(dataplane, admission_row(tenant, plain))
    settle_one(dataplane, void_row(nothing))
    # One whose gateway was lost: settled to its checkpoint now, and by the gateway after the invoice.
    lost = admitted(dataplane, admission_row(tenant, plain, prompt_bound_tokens=9_000, output_cap_tokens=900))
    checkpoint(dataplane, checkpoint_row(lost, 4_000, 100))
    end_lease(lost)
    settle_one(dataplane, sweep_row(lost))
    calls.append(lost)
    # One that is under way when the month ends.
    late = admitted(dataplane, admission_row(tenant, other, prompt_bound_tokens=9_000, output_cap_tokens=900))

    now = after_month()
    move_clock(moved, now)
    assert draw_up_invoices(now=now, tenant_id=tenant.id).drawn == 0
    settle_one(dataplane, settlement_row(late, prompt_tokens=8_000, completion_tokens=700))
    calls.append(late)
    assert draw_up_invoices(now=now, tenant_id=tenant.id).opened == 1
    assert draw_up_invoices(now=now, tenant_id=tenant.id).drawn == 0

    # Every line adds up from usage rows, and all of them to what the ledger took.
    (invoice,) = invoices_of(tenant.id)
    assert usage_of(invoice) == used_by(calls)
    owed_nanos = -wallet_of(tenant.id).paid_nanos
    assert invoice.usage_nanos == owed_nanos == sum(amount for _units, amount in usage_of(invoice).values())
    lines = lines_of(invoice)
    assert sum(line.amount_nanos for line in lines) == invoice.amount_nanos
    carried = sum(line.amount_nanos for line in lines if line.kind == MonthlyLineKind.CARRIED)
    assert invoice.amount_nanos - carried == owed_nanos
    assert invoice.state == MonthlyInvoiceState.OPEN
    at_stripe = client_of(moved).v1.invoices.retrieve(invoice.stripe_invoice_id or "")
    assert at_stripe.total == to_minor_units(invoice.amount_nanos, "USD")
    shown = client_of(moved).v1.invoices.line_items.list(invoice.stripe_invoice_id or "", {"limit": 100})
    assert sorted(line.amount for line in shown.data) == sorted(
        to_minor_units(line.asked_nanos, "USD") for line in lines if line.asked_nanos
    )
    assert invoice.due_at is not None
    assert abs(invoice.due_at - now - 30 * DAY) < timedelta(minutes=5)

    # A late settlement comes onto the next invoice; this one stays as it is.
    settle_one(
        dataplane, settlement_row(lost, prompt_tokens=4_500, completion_tokens=321, reasoning_tokens=9)
    )

    # The card is declined; nothing is credited.
    assert not pay(moved, invoice, "declined")
    assert tell(moved, now=now, kind="invoice.") > 0
    assert invoices_of(tenant.id)[0].state == MonthlyInvoiceState.OPEN

    # Reminders, and then it is suspended.
    seen = []
    for day in (-1, 0, 3, 7, 14, 20):
        now = invoice.due_at + day * DAY + timedelta(minutes=10)
        move_clock(moved, now)
        seen.append(remind_overdue(now=now, tenant_id=tenant.id).reminded)
    assert seen == [0, 1, 0, 1, 1, 0]
    assert state_of(tenant.id) == (TenantState.ACTIVE, "")
    now = invoice.due_at + 21 * DAY + timedelta(minutes=10)
    move_clock(moved, now)
    assert remind_overdue(now=now, tenant_id=tenant.id).exhausted == 1
    assert remind_overdue(now=now, tenant_id=tenant.id).exhausted == 0
    assert state_of(tenant.id) == (TenantState.SUSPENDED, "RECEIVABLE")
    answer = admit_one(dataplane, admission_row(tenant, plain))
    assert (answer.verdict, answer.reason) == (Verdict.REFUSED, Refusal.TENANT_SUSPENDED)
    assert invoices_of(tenant.id)[0].dunning == DunningState.EXHAUSTED

    # It pays, once however often it is told, and is active again.
    before_nanos = wallet_of(tenant.id).paid_nanos
    assert pay(moved, invoice)
    for _ in range(3):
        assert tell(moved, now=now, kind="invoice.") > 0
    (paid,) = invoices_of(tenant.id)
    assert (paid.state, paid.top_up_id) == (MonthlyInvoiceState.PAID, invoice.id)
    assert wallet_of(tenant.id).paid_nanos == before_nanos + invoice.amount_nanos
    (top_up,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert (top_up["source"], top_up["state"]) == ("INVOICE", "PAID")
    assert top_up["transfer_id"] == transfer_id(TransferKind.TOP_UP, f"topup:{invoice.id}")
    assert top_up["charge_id"].startswith("ch_")
    assert state_of(tenant.id) == (TenantState.ACTIVE, "")
    calls.append(admitted(dataplane, admission_row(tenant, plain)))
    settle_one(dataplane, settlement_row(calls[-1], prompt_tokens=100, completion_tokens=100))

    # The next months say the rest: the late settlement, what was carried over, and nothing twice.
    now = after_month(3)
    move_clock(moved, now)
    draw_up_invoices(now=now, tenant_id=tenant.id)
    drawn = invoices_of(tenant.id)
    assert len(drawn) == 3
    total = dict.fromkeys(used_by(calls), (0, 0))
    for one in drawn:
        for key, (units, nanos) in usage_of(one).items():
            total[key] = (total[key][0] + units, total[key][1] + nanos)
    assert total == used_by(calls)
    assert drawn[1].brought_nanos == -carried
    open_nanos = sum(one.amount_nanos for one in drawn[1:])
    assert drawn[-1].due_nanos - drawn[-1].amount_nanos == -wallet_of(tenant.id).paid_nanos - open_nanos
    assert broken_invariants() == {}


@pytest.mark.parametrize("fault", ["error_before", "error_after", "answer_lost", "rate_limit"])
@pytest.mark.parametrize(
    "match", ["POST /v1/invoices$", "POST /v1/invoiceitems", "POST /v1/invoices/.*/finalize"]
)
def test_whatever_stops_on_the_way_goes_on(
    moved: Standin, dataplane: Connection, fault: str, match: str
) -> None:
    """And nothing is made twice, also where the key is too old by then to be asked with again."""
    model = dear_model()
    tenant = make_postpaid(model)
    row = admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=9_000))
    settle_one(dataplane, settlement_row(row, prompt_tokens=9_000, completion_tokens=1))
    move_clock(moved, after_month())
    now = datetime.fromtimestamp(moved.control.get("clock")["now"], UTC)
    moved.control.fault(fault, match=match, times=1)
    for hours in (0, 1, 24, 25):
        draw_up_invoices(now=now + timedelta(hours=hours), tenant_id=tenant.id)
    (invoice, *_later) = invoices_of(tenant.id)
    assert invoice.state == MonthlyInvoiceState.OPEN
    client = client_of(moved)
    customer = client.v1.invoices.retrieve(invoice.stripe_invoice_id or "").customer
    made = client.v1.invoices.list({"customer": str(customer)}).data
    assert [one.total for one in made] == [to_minor_units(invoice.amount_nanos, "USD")]
