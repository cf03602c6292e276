"""The script in Valkey and the local buckets against a plain reference, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from uuid import UUID

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.testing import Services
from portal.kit import valkey
from portal.kit.ids import uuid7
from portal.kit.valkey_wire import Argument, encode
from quotas.limits.local_rate import Demand, LocalRates, Verdict
from quotas.limits.rate import CallLimits, RateLimit, demands_of
from quotas.limits.rate_script import give_back_script, renew_script, take_script
from quotas.models import LimitKind

VIRTUAL_CLOCK = "local now_us = tonumber(ARGV[#ARGV])\n"
START_US = 1_790_000_000_000_000
LEASE_MS = 20_000
MINUTE_US = 60_000_000
RPM, TPM, SLOTS = LimitKind.REQUESTS_RPM, LimitKind.TOKENS_TPM, LimitKind.CONCURRENCY


def script_arguments(request_id: UUID, demands: Sequence[Demand], *, lease_ms: int) -> list[Argument]:
    """The arguments of the scripts that take and give back."""
    arguments: list[Argument] = [str(request_id), lease_ms]
    for demand in demands:
        arguments += ("slots" if demand.is_slots else "rate", demand.limit, demand.amount)
    return arguments


class Reference:
    """Exact numbers and no cleverness. lease_us: None when slots never end by themselves."""

    def __init__(self, lease_us: int | None) -> None:
        self._lease_us = lease_us
        self._buckets: dict[str, tuple[Fraction, int]] = {}
        self._slots: dict[str, dict[UUID, int]] = {}

    def level(self, demand: Demand, now_us: int) -> Fraction:
        level, at_us = self._buckets.get(demand.key, (Fraction(0), now_us))
        leaked = Fraction((now_us - at_us) * demand.limit, MINUTE_US)
        return max(Fraction(0), min(level, Fraction(demand.limit)) - leaked)

    def live(self, key: str, now_us: int) -> dict[UUID, int]:
        # Leases are kept in milliseconds.
        ends = self._slots.get(key, {})
        return {id_: end for id_, end in ends.items() if end // 1000 > now_us // 1000}

    def waits(self, demands: Sequence[Demand], now_us: int) -> list[float]:
        """In seconds, of each demand; -1 where it is granted."""
        found = []
        for demand in demands:
            if demand.amount > demand.limit:
                found.append(math.inf)
            elif demand.is_slots:
                found.append(0.0 if len(self.live(demand.key, now_us)) >= demand.limit else -1.0)
            else:
                over = self.level(demand, now_us) + demand.amount - demand.limit
                is_over = over > Fraction(demand.limit, 10**9)
                found.append(float(over * 60 / demand.limit) if is_over else -1.0)
        return found

    def take(self, request_id: UUID, demands: Sequence[Demand], now_us: int) -> None:
        for demand in demands:
            if demand.is_slots:
                self.hold(request_id, demand.key, now_us)
            else:
                self._buckets[demand.key] = (self.level(demand, now_us) + demand.amount, now_us)

    def hold(self, request_id: UUID, key: str, now_us: int) -> None:
        end_us = now_us + self._lease_us if self._lease_us is not None else 2**62
        self._slots[key] = self.live(key, now_us) | {request_id: end_us}

    def give_back(self, request_id: UUID, demands: Sequence[Demand]) -> None:
        for demand in demands:
            if demand.is_slots:
                self._slots.get(demand.key, {}).pop(request_id, None)
            elif demand.key in self._buckets:
                level, at_us = self._buckets[demand.key]
                self._buckets[demand.key] = (max(Fraction(0), level - demand.amount), at_us)


class InValkey:
    def __init__(self, client: redis.Redis) -> None:
        self._take = client.register_script(take_script(VIRTUAL_CLOCK))
        self._give_back = client.register_script(give_back_script(VIRTUAL_CLOCK))
        self._renew = client.register_script(renew_script(VIRTUAL_CLOCK))

    def take(self, request_id: UUID, demands: Sequence[Demand], now_us: int) -> Verdict:
        arguments = script_arguments(request_id, demands, lease_ms=LEASE_MS)
        number, wait_us, _ = self._take(keys=[demand.key for demand in demands], args=[*arguments, now_us])
        if not number:
            return Verdict(None)
        return Verdict(number - 1, wait_us / 1_000_000 if wait_us >= 0 else math.inf)

    def give_back(self, request_id: UUID, demands: Sequence[Demand], now_us: int) -> None:
        arguments = script_arguments(request_id, demands, lease_ms=LEASE_MS)
        self._give_back(keys=[demand.key for demand in demands], args=[*arguments, now_us])

    def renew(self, request_id: UUID, keys: Sequence[str], now_us: int) -> None:
        self._renew(keys=keys, args=["", LEASE_MS, *[str(request_id)] * len(keys), now_us])


@dataclass(frozen=True, slots=True)
class Step:
    """Time passes, and then a call begins, or one of those that began before ends, is undone or renewed."""

    passes_us: int
    what: str
    demands: tuple[tuple[int, LimitKind, int], ...] = ()
    tokens: int = 1
    which: int = 0
    used: int = 0


LIMIT = st.one_of(st.integers(0, 8), st.integers(1, 10**6), st.just(10**12))
ASKED = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([RPM, TPM, SLOTS]), LIMIT),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one[:2],
)
PASSES = st.one_of(st.just(0), st.integers(1, 10**6), st.integers(10**6, 90 * 10**6))
TOKENS = st.one_of(st.integers(1, 10), st.integers(1, 10**6))


def steps(asked: st.SearchStrategy[list[tuple[int, LimitKind, int]]]) -> st.SearchStrategy[list[Step]]:
    begins = st.builds(Step, passes_us=PASSES, what=st.just("take"), demands=asked.map(tuple), tokens=TOKENS)
    goes_on = st.builds(
        Step,
        passes_us=PASSES,
        what=st.sampled_from(["end", "undo", "renew"]),
        which=st.integers(0, 5),
        used=TOKENS,
    )
    return st.lists(begins | goes_on, max_size=40)


STEPS = steps(ASKED)
FEW_SLOTS = steps(st.integers(1, 3).map(lambda limit: [(0, SLOTS, limit)]))


@dataclass
class Run:
    """Plays steps on a limiter and on the reference, and compares every answer."""

    limiter: InValkey | LocalRates
    reference: Reference
    now_us: int = START_US
    stem: str = field(default_factory=lambda: f"rate:{{{uuid7()}}}")
    taken: list[tuple[UUID, list[Demand]]] = field(default_factory=list)

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.now_us += step.passes_us
            if step.what == "take":
                self._take(step)
            elif self.taken:
                request_id, demands = self.taken[step.which % len(self.taken)]
                if step.what == "renew":
                    self._renew(request_id, demands)
                else:
                    self.taken.remove((request_id, demands))
                    self._give_back(request_id, demands, None if step.what == "undo" else step.used)

    def _take(self, step: Step) -> None:
        request_id = uuid7()
        demands = [
            Demand(f"{self.stem}:{kind}:{scope}", kind, limit, step.tokens if kind == TPM else 1)
            for scope, kind, limit in step.demands
        ]
        waits = self.reference.waits(demands, self.now_us)
        if isinstance(self.limiter, LocalRates):
            verdict = self.limiter.take(request_id, demands, now_s=(self.now_us - START_US) / 10**6)
        else:
            verdict = self.limiter.take(request_id, demands, self.now_us)
        if max(waits) < 0:
            assert verdict.refusing is None
            self.reference.take(request_id, demands, self.now_us)
            self.taken.append((request_id, demands))
        else:
            assert verdict.refusing is not None
            for wait_s in (verdict.wait_s, waits[verdict.refusing]):
                assert wait_s == pytest.approx(max(waits), rel=1e-9, abs=2e-6)

    def _give_back(self, request_id: UUID, demands: list[Demand], used: int | None) -> None:
        """used: None when everything comes back."""
        returned = [
            demand._replace(amount=max(0, demand.amount - (used or 0)))
            if demand.kind == TPM
            else demand._replace(amount=1 if used is None else 0)
            for demand in demands
        ]
        if isinstance(self.limiter, LocalRates):
            self.limiter.give_back(returned)
            self.limiter.free(request_id, returned)
        else:
            self.limiter.give_back(request_id, returned, self.now_us)
        self.reference.give_back(request_id, returned)

    def _renew(self, request_id: UUID, demands: list[Demand]) -> None:
        keys = [demand.key for demand in demands if demand.is_slots]
        if keys and isinstance(self.limiter, InValkey):
            self.limiter.renew(request_id, keys, self.now_us)
            for key in keys:
                self.reference.hold(request_id, key, self.now_us)


@pytest.fixture(scope="module")
def in_valkey(services: Services) -> Iterator[InValkey]:
    client = valkey.connect_sync(services.valkey_url)
    yield InValkey(client)
    client.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_valkey_decides_as_the_reference(in_valkey: InValkey, steps: list[Step]) -> None:
    Run(in_valkey, Reference(LEASE_MS * 1000)).play(steps)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=FEW_SLOTS)
def test_leases_of_few_slots_end_as_the_reference_says(in_valkey: InValkey, steps: list[Step]) -> None:
    Run(in_valkey, Reference(LEASE_MS * 1000)).play(steps)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_process_alone_decides_as_the_reference(steps: list[Step]) -> None:
    Run(LocalRates(), Reference(None)).play(steps)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(1, 200),
    gaps_us=st.lists(st.integers(0, 3 * 10**6), min_size=20, max_size=120),
)
def test_no_minute_sees_more_than_the_rate_and_one_burst(
    in_valkey: InValkey, limit: int, gaps_us: list[int]
) -> None:
    """Between any two moments pass at most a minute's worth and what the time between them allows."""
    demand = Demand(f"rate:{{{uuid7()}}}:rpm", RPM, limit, 1)
    now_us, passed = START_US, []
    for gap_us in gaps_us:
        now_us += gap_us
        if in_valkey.take(uuid7(), [demand], now_us).refusing is None:
            passed.append(now_us)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = limit + Fraction((passed[last] - passed[first]) * limit, MINUTE_US)
            assert last - first + 1 <= allowed + Fraction(1, 10**6)


@given(asked=ASKED, tokens=st.integers(0, 10**6), requests=st.integers(0, 1))
def test_what_goes_over_the_wire_are_these_arguments(
    asked: list[tuple[int, LimitKind, int]], tokens: int, requests: int
) -> None:
    """The arguments of this reference, as the limits of a call write them down."""
    tenant_id, request_id, sha = uuid7(), uuid7(), "0" * 40
    limits = CallLimits(tenant_id, [RateLimit(kind, value) for _, kind, value in asked], lease_ms=LEASE_MS)
    demands = demands_of(tenant_id, limits, tokens=tokens, requests=requests)
    wanted = encode(
        [
            "EVALSHA",
            sha,
            len(demands),
            *[demand.key for demand in demands],
            *script_arguments(request_id, demands, lease_ms=LEASE_MS),
        ]
    )
    # Twice: the beginning is written down once.
    for _ in range(2):
        assert limits.command(sha, request_id, requests=requests, tokens=tokens) == wanted
