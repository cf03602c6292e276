"""Sixteen connections admit, checkpoint, settle and sweep at once; no money is lost or overdrawn."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest

from portal.kit.batching import Busy
from portal.kit.ids import uuid7
from quotas import audit
from quotas.admission import AdmissionAnswer, AdmissionRow
from quotas.settlement import SettlementAnswer, SettlementRow
from quotas.tests.doors import Connection, admit, checkpoint, checkpoint_row, settle, sweep_of
from tests.database import connected, money_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_tenant,
    settlement_row,
    void_row,
)

THREADS = 16
ROUNDS = 10
BATCH = 6
HOLD = 300_002
DEADLINE_S = 90.0


def flushed(door: Callable[..., list[Any]], connection: Connection, rows: Sequence[Any]) -> dict[UUID, Any]:
    """Send rows until none is BUSY, as a gateway does: first without waiting, then waiting for the locks."""
    answers: dict[UUID, Any] = {}
    waiting, block_ms = list(rows), 0
    deadline_s = time.monotonic() + DEADLINE_S
    while waiting:
        assert time.monotonic() < deadline_s, "some rows were BUSY for too long"
        try:
            batch = door(connection, *waiting, block_ms=block_ms)
        except psycopg.errors.LockNotAvailable:
            batch = [Busy.BUSY] * len(waiting)
        answers |= {
            row.request_id: answer
            for row, answer in zip(waiting, batch, strict=True)
            if not isinstance(answer, Busy)
        }
        waiting = [row for row in waiting if row.request_id not in answers]
        block_ms = 5_000
    return answers


@dataclass(slots=True)
class Tally:
    """What all threads together saw: verdicts counted, and nano-units charged by tenant."""

    verdicts: dict[str, int] = field(default_factory=dict)
    charged: dict[UUID, int] = field(default_factory=dict)
    credited: dict[UUID, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, verdict: str, tenant_id: UUID, charged: int) -> None:
        with self.lock:
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
            self.charged[tenant_id] = self.charged.get(tenant_id, 0) + charged


def gateway(seed: int, tenants: Sequence[TenantFixture], model: ModelFixture, tally: Tally) -> None:
    """One gateway: batches of admissions, some sent twice, checkpoints, and then their settlements."""
    chance = random.Random(seed)
    with connected("dataplane") as connection:
        for _ in range(ROUNDS):
            rows = [admission_row(chance.choice(tenants), model) for _ in range(BATCH)]
            answers = flushed(admit, connection, rows)
            if chance.random() < 0.3:
                again = flushed(admit, connection, rows)
                for row in rows:
                    if answers[row.request_id].verdict == "ADMITTED":
                        assert again.pop(row.request_id).verdict == "ALREADY_DONE"
                # What was refused before may find room now.
                answers |= again
            admitted = []
            for row in rows:
                answer = answers[row.request_id]
                assert isinstance(answer, AdmissionAnswer)
                tally.add(answer.verdict, row.tenant_id, 0)
                if answer.verdict == "ADMITTED":
                    admitted.append(row)
            if admitted:
                live = checkpoint(connection, *(checkpoint_row(row, 10, 5) for row in admitted))
                assert live.keys() == {row.request_id for row in admitted}
            _end(connection, chance, admitted, tally)


def _end(connection: Connection, chance: random.Random, rows: Sequence[AdmissionRow], tally: Tally) -> None:
    ends = [_end_of(chance, row) for row in rows]
    chance.shuffle(ends)
    answers = flushed(settle, connection, ends)
    for end in ends:
        answer = answers[end.request_id]
        assert isinstance(answer, SettlementAnswer)
        assert answer.verdict == "SETTLED"
        tally.add(answer.verdict, end.tenant_id, answer.charged_nanos or 0)
    if chance.random() < 0.3:
        again = flushed(settle, connection, ends)
        assert {answer.verdict for answer in again.values()} <= {"ALREADY_DONE"}


def _end_of(chance: random.Random, row: AdmissionRow) -> SettlementRow:
    kind = chance.random()
    if kind < 0.2:
        return void_row(row)
    # Now and then the backend serves more than was held.
    most = 1_000 if kind > 0.9 else 100
    return settlement_row(
        row, prompt_tokens=chance.randrange(1, 101), completion_tokens=chance.randrange(most)
    )


def watch(tenants: Sequence[TenantFixture], stop: threading.Event) -> list[int]:
    """Look at the wallets until told to stop; the least that was available, and how often it looked."""
    least, looks = 0, 0
    with connected("operator") as connection:
        while not stop.wait(0.002):
            row = connection.execute(
                "SELECT min(paid_nanos + granted_nanos + overdraft_nanos - pending_nanos) FROM quotas_wallet "
                "WHERE tenant_id = ANY (%s)",
                ([tenant.id for tenant in tenants],),
            ).fetchone()
            assert row is not None
            least, looks = min(least, row[0]), looks + 1
    return [least, looks]


def sweep(tenants: Sequence[TenantFixture], stop: threading.Event) -> None:
    """A sweeper that keeps asking for calls that are alive or ended; it must change nothing."""
    with connected("dataplane") as connection:
        while not stop.wait(0.01):
            found = connection.execute(
                "SELECT request_id, tenant_id FROM quotas_hold WHERE tenant_id = ANY (%s) LIMIT 20",
                ([tenant.id for tenant in tenants],),
            ).fetchall()
            with suppress(psycopg.errors.LockNotAvailable):
                for answer in settle(connection, *(sweep_of(*row) for row in found)):
                    assert isinstance(answer, Busy) or answer.verdict in {"NOT_EXPIRED", "ALREADY_DONE"}


def pay(tenants: Sequence[TenantFixture], stop: threading.Event, tally: Tally) -> None:
    """Money comes in meanwhile: it locks the same wallets."""
    with connected("operator") as connection:
        for turn in range(10**6):
            if stop.wait(0.02):
                return
            tenant_id = tenants[turn % len(tenants)].id
            connection.execute(
                "SELECT quotas_credit(%s, 'TOP_UP', %s, 7, 'CASH_CLEARING', '')", (uuid7(), tenant_id)
            )
            tally.credited[tenant_id] = tally.credited.get(tenant_id, 0) + 7


@pytest.mark.parametrize("tenant_count", [1, 5])
def test_many_gateways_never_overdraw_lose_or_double(tenant_count: int, model: ModelFixture) -> None:
    """Each wallet covers about a tenth of what is asked at once, so most threads meet its edge."""
    tenants = [make_tenant(granted="0.001", paid="0.005") for _ in range(tenant_count)]
    for tenant in tenants:
        enable(tenant, model)
    tally, stop = Tally(), threading.Event()
    with ThreadPoolExecutor(THREADS + 3) as pool:
        watcher = pool.submit(watch, tenants, stop)
        others = [pool.submit(sweep, tenants, stop), pool.submit(pay, tenants, stop, tally)]
        try:
            gateways = [pool.submit(gateway, seed, tenants, model, tally) for seed in range(THREADS)]
            for each in as_completed(gateways, timeout=DEADLINE_S):
                each.result()
        finally:
            stop.set()
        for each in others:
            each.result(timeout=10)
        least, looks = watcher.result(timeout=10)

    assert least >= 0
    assert looks > 10
    assert tally.verdicts["ADMITTED"] == tally.verdicts["SETTLED"]
    # The whole balance of every wallet was offered, and nothing below one hold can be left to spend.
    assert tally.verdicts["ADMITTED"] >= tenant_count * 6_000_000 // HOLD
    assert tally.verdicts["REFUSED"] > 0
    for tenant in tenants:
        money = money_of(tenant.id)
        assert money.pending == 0
        assert money.receivable == 0
        assert money.paid + money.granted == (
            6_000_000 + tally.credited.get(tenant.id, 0) - tally.charged.get(tenant.id, 0)
        )
    assert [result for result in audit.run() if not result.holds] == []
