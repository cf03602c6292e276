"""Any order of credits, admissions, settlements, sweeps and repeats agrees with the plain model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from quotas import audit
from quotas.admission import AdmissionAnswer, AdmissionRow
from quotas.settlement import SettlementAnswer
from quotas.tests import money_model
from quotas.tests.doors import (
    admit,
    changed,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle,
    sweep_row,
    usage_of,
)
from quotas.tests.money_model import Call, Facts, Purse
from tests.database import connection_info
from tests.factories import (
    LineSpec,
    ModelFixture,
    TenantFixture,
    add_granted,
    add_paid,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)

TENANTS = 2

# A call of the sizes below holds up to 422,000 nano-units: balances are soon spent.
amounts = st.integers(1, 400_000)
first_amounts = st.sampled_from([60_000, 0, 300_000, 1_000_000])
overdrafts = st.sampled_from([0, 100_000])
tenants = st.integers(0, TENANTS - 1)
# Positions in the list of calls, counted from its end: recent calls come first.
recent = st.integers(1, 8)
sizes = st.tuples(st.integers(0, 80), st.integers(1, 90), st.integers(1, 2))


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Any usage, often beyond what was admitted."""
    prompt, completion = draw(st.integers(0, 120)), draw(st.integers(0, 200))
    image = draw(st.integers(0, prompt))
    return Facts(
        prompt,
        draw(st.integers(0, prompt - image)),
        image,
        completion,
        draw(st.integers(0, completion)),
    )


class Known:
    """A call, as sent and as modelled."""

    def __init__(self, owner: int, row: AdmissionRow, call: Call) -> None:
        self.owner, self.row, self.call = owner, row, call


class MoneyMachine(RuleBasedStateMachine):
    model: ModelFixture

    @initialize(
        purses=st.lists(
            st.tuples(first_amounts, first_amounts, overdrafts), min_size=TENANTS, max_size=TENANTS
        )
    )
    def open(self, purses: list[tuple[int, int, int]]) -> None:
        self.connection = psycopg.connect(connection_info("dataplane"), autocommit=True)
        self.operator = psycopg.connect(connection_info("operator"), autocommit=True)
        self.tenants: list[TenantFixture] = []
        self.purses: list[Purse] = []
        self.calls: list[Known] = []
        self.refused: list[tuple[int, AdmissionRow]] = []
        for paid, granted, overdraft in purses:
            self._open(paid, granted, overdraft)

    @rule(owner=tenants, amount=amounts, is_paid=st.booleans())
    def credit(self, owner: int, amount: int, is_paid: bool) -> None:
        if is_paid:
            add_paid(self.tenants[owner].id, amount)
            self.purses[owner].top_up(amount)
        else:
            add_granted(self.tenants[owner].id, amount)
            self.purses[owner].granted += amount

    @rule(
        wanted=st.lists(st.tuples(tenants, sizes), min_size=2, max_size=6),
        repeats=st.lists(st.tuples(recent, st.booleans()), max_size=3, unique_by=lambda pair: pair[0]),
        retries_refused=st.booleans(),
    )
    def admit_batch(
        self,
        wanted: list[tuple[int, tuple[int, int, int]]],
        repeats: list[tuple[int, bool]],
        retries_refused: bool,
    ) -> None:
        """New calls, repeats of earlier ones (some with another body), and refused ones once more."""
        rows = [(owner, self._row(owner, size)) for owner, size in wanted]
        if retries_refused and self.refused:
            rows.append(self.refused.pop())
        expected: list[tuple[str, int | None]] = []
        for owner, row in rows:
            hold = money_model.hold_of(row.prompt_bound_tokens, row.output_cap_tokens, row.choices)
            call = self.purses[owner].admit(hold)
            expected.append(("ADMITTED" if call else "REFUSED", hold))
            if call:
                self.calls.append(Known(owner, row, call))
            else:
                self.refused.append((owner, row))
        batch = [row for _, row in rows]
        for position, is_same in repeats:
            known = self._recent(position, but=batch)
            if known is not None:
                batch.append(known.row if is_same else changed(known.row, payload_sha256="00" * 32))
                expected.append(("ALREADY_DONE" if is_same else "CONFLICT", known.call.hold))
        if batch:
            answers = admit(self.connection, *batch)
            assert [
                (answer.verdict, answer.hold_nanos)
                for answer in answers
                if isinstance(answer, AdmissionAnswer)
            ] == expected

    @precondition(lambda self: self.calls)
    @rule(
        ends=st.lists(
            st.tuples(recent, st.one_of(st.none(), st.just("sweep"), some_facts())),
            min_size=1,
            max_size=6,
            unique_by=lambda pair: pair[0],
        )
    )
    def settle_batch(self, ends: list[tuple[int, Any]]) -> None:
        """Gateways and the sweeper in one batch, first time and repeated, in time and late."""
        self._settle([(self.calls[-position], end) for position, end in ends if position <= len(self.calls)])

    @precondition(lambda self: self._among(_is_recorded))
    @rule(position=recent)
    def repeat_a_settlement(self, position: int) -> None:
        """The gateway does not know whether its commit arrived, and sends the same once more."""
        known = self._among(_is_recorded)[-position:][0]
        self._settle([(known, known.call.newest.facts)])

    @precondition(lambda self: self._among(_is_pending))
    @rule(position=recent, seen=st.one_of(st.none(), some_facts()), is_swept=st.booleans())
    def lose_a_gateway(self, position: int, seen: Facts | None, is_swept: bool) -> None:
        """Its last checkpoint may be there or not; then the lease ends, and perhaps a sweep passes."""
        known = self._among(_is_pending)[-position:][0]
        if seen is not None:
            self._checkpoint([(known, seen)])
        end_lease(known.row)
        known.call.lease_is_over = True
        if is_swept:
            self._settle([(known, "sweep")])

    @precondition(lambda self: self._among(_is_swept))
    @rule(position=recent, end=st.one_of(st.none(), some_facts()))
    def settle_late(self, position: int, end: Facts | None) -> None:
        """The gateway was only slow; what it settles comes after the sweeper, or is its second word."""
        self._settle([(self._among(_is_swept)[-position:][0], end)])

    @precondition(lambda self: self.calls)
    @rule(
        delivered=st.lists(
            st.tuples(recent, some_facts()), min_size=1, max_size=4, unique_by=lambda pair: pair[0]
        )
    )
    def make_checkpoints(self, delivered: list[tuple[int, Facts]]) -> None:
        """A checkpoint renews the lease of a pending hold, and its counts never go back."""
        pairs = [(self._recent(position), facts) for position, facts in delivered]
        self._checkpoint([(known, facts) for known, facts in pairs if known is not None])

    @invariant()
    def balances_agree(self) -> None:
        stored = self.operator.execute(
            "SELECT tenant_id, paid_nanos, granted_nanos, -receivable_nanos, pending_nanos, overdraft_nanos "
            "FROM quotas_wallet WHERE tenant_id = ANY (%s)",
            ([tenant.id for tenant in self.tenants],),
        ).fetchall()
        wallets = {tenant_id: Purse(*amounts) for tenant_id, *amounts in stored}
        assert [wallets[tenant.id] for tenant in self.tenants] == self.purses
        assert all(purse.available >= 0 for purse in self.purses)

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
            self.operator.close()
            assert [result for result in audit.run() if not result.holds] == []

    def _open(self, paid: int, granted: int, overdraft: int) -> None:
        tenant = make_tenant(granted=None)
        enable(tenant, self.model)
        if granted:
            add_granted(tenant.id, granted)
        if paid:
            add_paid(tenant.id, paid)
        self.operator.execute(
            "UPDATE quotas_wallet SET overdraft_nanos = %s WHERE tenant_id = %s", (overdraft, tenant.id)
        )
        self.tenants.append(tenant)
        self.purses.append(Purse(paid=paid, granted=granted, overdraft=overdraft))

    def _settle(self, chosen: list[tuple[Known, Any]]) -> None:
        """Settle each call as said: with facts, void (None) or by the sweeper."""
        expected, rows = [], []
        for known, end in chosen:
            purse = self.purses[known.owner]
            before = known.call.state
            if end == "sweep":
                expected.append(purse.sweep(known.call))
                rows.append(sweep_row(known.row))
            else:
                expected.append(purse.settle(known.call, end))
                rows.append(void_row(known.row) if end is None else _facts_row(known.row, end))
            event(f"{'sweep' if end == 'sweep' else 'settle'} {before}: {expected[-1]}")
        if rows:
            answers = settle(self.connection, *rows)
            assert [answer.verdict for answer in answers if isinstance(answer, SettlementAnswer)] == expected
        for known, _ in chosen:
            _assert_records(known)

    def _checkpoint(self, chosen: list[tuple[Known, Facts]]) -> None:
        if not chosen:
            return
        rows = [
            checkpoint_row(
                known.row, facts.prompt, facts.completion, cached=facts.cached, reasoning=facts.reasoning
            )
            for known, facts in chosen
        ]
        answer = checkpoint(self.connection, *rows)
        live = [(known, facts) for known, facts in chosen if _is_pending(known.call)]
        assert answer == {known.row.request_id: True for known, _ in live}
        for known, facts in live:
            known.call.renew(facts)

    def _among(self, condition: Callable[[Call], bool]) -> list[Known]:
        return [known for known in self.calls if condition(known.call)]

    def _row(self, owner: int, size: tuple[int, int, int]) -> AdmissionRow:
        prompt, cap, choices = size
        return admission_row(
            self.tenants[owner],
            self.model,
            prompt_bound_tokens=prompt,
            output_cap_tokens=cap,
            choices=choices,
        )

    def _recent(self, position: int, *, but: Sequence[AdmissionRow] = ()) -> Known | None:
        if position > len(self.calls):
            return None
        known = self.calls[-position]
        return None if any(row.request_id == known.row.request_id for row in but) else known


def _is_pending(call: Call) -> bool:
    return call.state == "PENDING"


def _is_recorded(call: Call) -> bool:
    return call.newest.source == "GATEWAY"


def _is_swept(call: Call) -> bool:
    return call.resolved_by == "SWEEPER"


def _facts_row(row: AdmissionRow, facts: Facts) -> Any:
    return settlement_row(
        row,
        prompt_tokens=facts.prompt,
        cached_tokens=facts.cached,
        image_tokens=facts.image,
        completion_tokens=facts.completion,
        reasoning_tokens=facts.reasoning,
    )


def _assert_records(known: Known) -> None:
    stored = [
        (
            usage["source"],
            usage["cost_nanos"],
            usage["charged_nanos"],
            usage["granted_nanos"],
            usage["receivable_nanos"],
            usage["overrun_nanos"],
        )
        for usage in usage_of(known.row)
    ]
    assert stored == [
        (record.source, record.cost, record.charged, record.granted, record.owed, record.overrun)
        for record in known.call.records
    ]


# Shrinking a failure to the shortest history takes Hypothesis up to five minutes.
@pytest.mark.timeout(420)
def test_any_history_agrees_with_the_plain_model(database: None) -> None:
    MoneyMachine.model = make_model(
        prices={
            "cached_input": money_model.CACHED,
            "output": money_model.OUTPUT,
            "reasoning": money_model.REASONING,
            "request": money_model.REQUEST,
        },
        lines=[
            LineSpec("input", money_model.INPUT, input_to_tokens=money_model.LONG_FROM),
            LineSpec("input", money_model.INPUT_LONG, input_from_tokens=money_model.LONG_FROM),
        ],
    )
    run_state_machine_as_test(
        MoneyMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
