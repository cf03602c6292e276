"""Any order of limits, calls, ends and passing days agrees with the plain model of quotas and budgets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

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
from quotas.admission import AdmissionRow, LimitHit
from quotas.models import ANY, BUDGET_KINDS, QUOTA_KINDS, LimitKind
from quotas.settlement import SettlementAnswer, SettlementRow
from quotas.tests import money_model
from quotas.tests.doors import admit, checkpoint, checkpoint_row, settle, sweep_row, verdicts
from quotas.tests.limit_model import MONEY, Account, Counted, Hit, Place, Refusal, Size
from quotas.tests.limit_rows import clear_limit, set_limit
from quotas.tests.money_model import Facts, Purse
from quotas.tests.settable_clock import ClockedDoors, clocked_doors
from tests.database import connection_info
from tests.factories import (
    LineSpec,
    ModelFixture,
    add_granted,
    admission_row,
    enable,
    issue_key,
    make_model,
    make_price,
    make_tenant,
    settlement_row,
    void_row,
)

# Close to the end of a short month.
BEGINNING = datetime(2021, 2, 26, 17, 30, tzinfo=UTC)

some_funds = st.sampled_from([50_000_000, 2_000_000])
which = st.integers(0, 1)
places = st.builds(
    Place,
    st.sampled_from([None, None, 0, 1]),
    st.sampled_from([None, None, 0, 1]),
    st.sampled_from([*QUOTA_KINDS, *BUDGET_KINDS]),
)
# Of what a call reserves at most, in thousandths.
values = st.integers(0, 6_000)
MOST = Size(80, 90, 2)
sizes = st.builds(Size, st.integers(0, 80), st.integers(1, 90), st.integers(1, 2))
recent = st.integers(1, 8)
spans = st.one_of(
    st.sampled_from([timedelta(hours=7), timedelta(days=1), timedelta(days=20), timedelta(days=31)]),
    st.just("to the last microsecond of the day"),
    st.just("to the beginning of the next day"),
)


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Any usage, now and then beyond what was admitted."""
    prompt, completion = draw(st.integers(0, 90)), draw(st.integers(0, 200))
    return Facts(prompt, draw(st.integers(0, prompt)), 0, completion, draw(st.integers(0, completion)))


class LimitMachine(RuleBasedStateMachine):
    models: list[ModelFixture]

    @initialize(funds=some_funds)
    def open(self, funds: int) -> None:
        self.stack = ExitStack()
        self.doors: ClockedDoors = self.stack.enter_context(clocked_doors())
        self.owner = self.stack.enter_context(psycopg.connect(connection_info("owner"), autocommit=True))
        self.tenant = make_tenant(granted=None)
        for model in self.models:
            enable(self.tenant, model)
        add_granted(self.tenant.id, funds)
        other, digest = issue_key(self.tenant.id)
        self.keys = [(self.tenant.key.id, self.tenant.digest_hex), (other.id, digest)]
        self.account = Account(Purse(granted=funds))
        self.rows: dict[int, AdmissionRow] = {}
        self._at(BEGINNING)

    # What happens.

    @rule(place=places, share=values)
    def set(self, place: Place, share: int) -> None:
        value = share * (MOST.hold if place.kind in MONEY else MOST.tokens) // 1_000
        model_id, key_id = self._ids(place)
        set_limit(self.tenant.id, place.kind, value, model_id=model_id, api_key_id=key_id, at=self.now)
        self.account.limits[place] = value

    @precondition(lambda self: self.account.limits)
    @rule(number=st.integers(0, 7))
    def clear(self, number: int) -> None:
        place = list(self.account.limits)[number % len(self.account.limits)]
        model_id, key_id = self._ids(place)
        clear_limit(self.tenant.id, place.kind, model_id=model_id, api_key_id=key_id, at=self.now)
        del self.account.limits[place]

    @rule(span=spans)
    def wait(self, span: Any) -> None:
        tomorrow = self.now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        if isinstance(span, timedelta):
            self._at(self.now + span)
        else:
            self._at(tomorrow - timedelta(microseconds=1) if "last" in span else tomorrow)
        self._end_leases()

    @rule(wanted=st.lists(st.tuples(which, which, sizes), min_size=1, max_size=6), repeat=st.none() | recent)
    def admit(self, wanted: list[tuple[int, int, Size]], repeat: int | None) -> None:
        """A batch; perhaps with an earlier call that is sent once more."""
        rows, expected = [], []
        for model, key, size in wanted:
            row = self._row(model, key, size)
            outcome = self.account.admit(model, key, size, self.now)
            if isinstance(outcome, Counted):
                self.rows[id(outcome)] = row
            rows.append(row)
            expected.append(outcome)
        known = len(self.account.calls) - sum(isinstance(outcome, Counted) for outcome in expected)
        if repeat is not None and repeat <= known:
            rows.append(self.rows[id(self.account.calls[known - repeat])])
        answers = admit(self.doors.connection, *rows)
        for answer, outcome in zip(answers, expected, strict=False):
            self._compare(answer, outcome)
        assert verdicts(answers[len(expected) :]) == ["ALREADY_DONE"] * (len(rows) - len(expected))

    @precondition(lambda self: self.account.calls)
    @rule(
        ends=st.lists(
            st.tuples(recent, st.one_of(st.none(), st.just("sweep"), some_facts())),
            min_size=1,
            max_size=6,
            unique_by=lambda pair: pair[0],
        )
    )
    def settle(self, ends: list[tuple[int, Any]]) -> None:
        """Gateways and the sweeper, in time and late, first time and again."""
        rows: list[SettlementRow] = []
        expected = []
        for position, end in ends:
            if position > len(self.account.calls):
                continue
            counted = self.account.calls[-position]
            row, call = self.rows[id(counted)], counted.call
            if end == "sweep":
                expected.append(self.account.purse.sweep(call))
                rows.append(sweep_row(row))
            else:
                expected.append(self.account.purse.settle(call, end))
                rows.append(void_row(row) if end is None else _facts_row(row, end))
            event(f"{'sweep' if end == 'sweep' else 'settle'}: {expected[-1]}")
        answers = settle(self.doors.connection, *rows) if rows else []
        assert [answer.verdict for answer in answers if isinstance(answer, SettlementAnswer)] == expected

    @precondition(lambda self: any(True for _ in self._pending()))
    @rule(position=recent, seen=some_facts())
    def see(self, position: int, seen: Facts) -> None:
        """A checkpoint of a running call; what is swept later is settled to it."""
        counted = list(self._pending())[-position:][0]
        row = self.rows[id(counted)]
        delivered = checkpoint_row(
            row, seen.prompt, seen.completion, cached=seen.cached, reasoning=seen.reasoning
        )
        assert checkpoint(self.doors.connection, delivered) == {row.request_id: True}
        counted.call.renew(seen)

    # What must be so.

    @invariant()
    def counters_agree(self) -> None:
        stored = self.owner.execute(
            "SELECT model_id, api_key_id, kind, period_start, used, pending FROM quotas_limituse "
            "WHERE tenant_id = %s",
            (self.tenant.id,),
        ).fetchall()
        models = {ANY: None} | {model.id: number for number, model in enumerate(self.models)}
        keys = {ANY: None} | {key_id: number for number, (key_id, _) in enumerate(self.keys)}
        for model_id, key_id, kind, start, *use in stored:
            place = Place(models[model_id], keys[key_id], LimitKind(kind))
            at = datetime(start.year, start.month, start.day, tzinfo=UTC)
            assert tuple(use) == self.account.use(place, at), (place, start)

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        ends = [void_row(self.rows[id(counted)]) for counted in self._pending()]
        if ends:
            settle(self.doors.connection, *ends)
        self.stack.close()
        assert [result for result in audit.run() if not result.holds] == []

    # How.

    def _at(self, now: datetime) -> None:
        self.now = now
        self.doors.set(now)

    def _ids(self, place: Place) -> tuple[UUID | None, UUID | None]:
        return (
            None if place.model is None else self.models[place.model].id,
            None if place.key is None else self.keys[place.key][0],
        )

    def _row(self, model: int, key: int, size: Size) -> AdmissionRow:
        key_id, digest = self.keys[key]
        return admission_row(
            self.tenant,
            self.models[model],
            api_key_id=key_id,
            digest=digest,
            prompt_bound_tokens=size.prompt,
            output_cap_tokens=size.cap,
            choices=size.choices,
        )

    def _pending(self) -> Iterator[Counted]:
        return (counted for counted in self.account.calls if counted.call.state == "PENDING")

    def _end_leases(self) -> None:
        """Nobody has renewed them since; a lease is far shorter than most spans."""
        pending = list(self._pending())
        self.owner.execute(
            "UPDATE quotas_hold SET lease_until = %s WHERE request_id = ANY (%s)",
            (self.now - timedelta(seconds=1), [self.rows[id(counted)].request_id for counted in pending]),
        )
        for counted in pending:
            counted.call.lease_is_over = True

    def _compare(self, answer: Any, outcome: Counted | Refusal) -> None:
        if isinstance(outcome, Counted):
            assert (answer.verdict, answer.limit) == ("ADMITTED", None)
            event("admitted")
            return
        event(answer.reason)
        assert (answer.verdict, answer.fit_output_tokens) == ("REFUSED", outcome.fits)
        if not outcome.hits:
            assert (answer.reason, answer.limit) == ("INSUFFICIENT_FUNDS", None)
            return
        named = self._hit(answer.limit)
        # Several may reset at the same time; any of them is right.
        assert named in outcome.hits
        assert answer.reason == named.reason

    def _hit(self, limit: LimitHit) -> Hit:
        models, keys = [model.id for model in self.models], [key_id for key_id, _ in self.keys]
        place = Place(
            None if limit.model_id is None else models.index(limit.model_id),
            None if limit.api_key_id is None else keys.index(limit.api_key_id),
            limit.kind,
        )
        return Hit(place, limit.value, limit.used, limit.pending, limit.needed, limit.resets_at)


def _facts_row(row: AdmissionRow, facts: Facts) -> SettlementRow:
    return settlement_row(
        row,
        prompt_tokens=facts.prompt,
        cached_tokens=facts.cached,
        completion_tokens=facts.completion,
        reasoning_tokens=facts.reasoning,
    )


# Shrinking a failure to the shortest history takes Hypothesis up to five minutes.
@pytest.mark.timeout(420)
def test_any_history_agrees_with_the_plain_model(database: None) -> None:
    LimitMachine.models = [make_model(prices=None) for _ in range(2)]
    for model in LimitMachine.models:
        make_price(
            model.id,
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
            active_from=datetime(2020, 1, 1, tzinfo=UTC),
        )
    run_state_machine_as_test(
        LimitMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
