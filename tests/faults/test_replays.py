"""I10: however often, in whatever order and by however many connections the same rows are sent, the
balances come out the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.batching import Busy
from quotas.admission import AdmissionAnswer, AdmissionRow, Verdict, admit_batch
from quotas.settlement import SettlementRow, settle_batch
from quotas.settlement import Verdict as SettlementVerdict
from tests.database import Money, blocking, connected, money_of
from tests.factories import (
    ModelFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)
from tests.faults.evidence import assert_audit_holds, posted_nanos, price_nanos, usage_of

CALLS = 6
GRANTED_NANOS = 10**9
RowT = TypeVar("RowT", AdmissionRow, SettlementRow)

# One sender's plan: batches of calls by number, each call at most once in a batch, as the doors ask for.
PLAN = st.lists(
    st.lists(st.integers(0, CALLS - 1), min_size=1, max_size=CALLS, unique=True), min_size=1, max_size=4
)
BOTH_PLANS = st.tuples(PLAN, PLAN)


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


def send_until_answered(send: Callable[[Sequence[RowT]], Iterable[Any]], rows: Sequence[RowT]) -> list[Any]:
    """Send a batch, and again those that were BUSY. The answers that were none, in any order."""
    answers: list[Any] = []
    waiting = list(rows)
    for _ in range(1000):
        said = list(zip(waiting, send(waiting), strict=True))
        answers += [answer for _, answer in said if not isinstance(answer, Busy)]
        waiting = [row for row, answer in said if isinstance(answer, Busy)]
        if not waiting:
            return answers
    raise AssertionError("a wallet stayed locked")


class Sender(threading.Thread):
    """Sends its batches over a connection of its own; `block_ms` says whether it waits for wallets."""

    def __init__(self, door: Any, options: dict[str, int], batches: list[list[Any]]) -> None:
        super().__init__(daemon=True)
        self._door, self._options, self._batches = door, options, batches
        self.answers: list[Any] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with connected("dataplane") as connection:
                for batch in self._batches:
                    self.answers += send_until_answered(self._sending(connection), batch)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            self.failure = error

    def _sending(self, connection: psycopg.Connection[Any]) -> Callable[[Sequence[Any]], Iterable[Any]]:
        return lambda rows: blocking(self._door, connection, rows, **self._options)


def send_both(
    door: Any, rows: Sequence[Any], plans: tuple[list[list[int]], list[list[int]]], **options: int
) -> list[Any]:
    """Both plans at the same time, one sender waiting for wallets; then all once more in one batch."""
    senders = [
        Sender(
            door, {**options, "block_ms": block_ms}, [[rows[number] for number in batch] for batch in plan]
        )
        for plan, block_ms in zip(plans, (0, 1000), strict=True)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(30)
        assert not sender.is_alive()
        assert sender.failure is None, sender.failure
    last = Sender(door, {**options, "block_ms": 1000}, [list(rows)])
    last.run()
    assert last.failure is None, last.failure
    return [answer for sender in (*senders, last) for answer in sender.answers]


@given(admissions=BOTH_PLANS, settlements=BOTH_PLANS)
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_replays_end_in_the_same_balances(
    model: ModelFixture,
    admissions: tuple[list[list[int]], list[list[int]]],
    settlements: tuple[list[list[int]], list[list[int]]],
) -> None:
    tenant = make_tenant(granted="1.00")
    enable(tenant, model)
    rows = [admission_row(tenant, model) for _ in range(CALLS)]
    answers: list[AdmissionAnswer] = send_both(admit_batch, rows, admissions, lease_s=60)
    # Each is admitted by exactly one of its senders; all others hear that it is.
    assert sorted(a.request_id for a in answers if a.verdict == Verdict.ADMITTED) == sorted(
        row.request_id for row in rows
    )
    assert {answer.verdict for answer in answers} <= {Verdict.ADMITTED, Verdict.ALREADY_DONE}
    hold_nanos = answers[0].hold_nanos or 0
    assert money_of(tenant.id) == Money(granted=GRANTED_NANOS, pending=CALLS * hold_nanos)

    # The last call delivered nothing, so its hold is released.
    ends = [settlement_row(row, prompt_tokens=7, completion_tokens=number) for number, row in enumerate(rows)]
    ends[-1] = void_row(rows[-1])
    settled = send_both(settle_batch, ends, settlements)
    assert sorted(a.request_id for a in settled if a.verdict == SettlementVerdict.SETTLED) == sorted(
        row.request_id for row in rows
    )
    charges = [price_nanos(7, number) for number in range(CALLS - 1)]
    assert money_of(tenant.id) == Money(granted=GRANTED_NANOS - sum(charges))
    assert len(usage_of(tenant.id)) == CALLS - 1
    assert [posted_nanos(row.request_id) for row in rows] == [*([charge] for charge in charges), []]


def test_the_audit_agrees(model: ModelFixture) -> None:
    assert_audit_holds()
