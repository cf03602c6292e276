"""What admission and settlement should come to, in plain Python: one wallet, one call at a time.

Written from the rules, not from the SQL: integers, no batches, no locks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

PER_MILLION = 10**6

# Nano-units per million tokens. Long prompts, from LONG_FROM tokens on, have a dearer input price.
INPUT, INPUT_LONG, CACHED = 333_333_333, 777_777_777, 33_333_333
OUTPUT, REASONING, REQUEST = 1_234_567_891, 2_000_000_001, 5_000_000
LONG_FROM = 50


class Facts(NamedTuple):
    """Tokens of a call: prompt includes cached and image, completion includes reasoning."""

    prompt: int = 0
    cached: int = 0
    image: int = 0
    completion: int = 0
    reasoning: int = 0


NOTHING_SEEN = Facts()


class Record(NamedTuple):
    """A revision of a call's usage, in nano-units; parts of what the tenant was charged."""

    source: str
    facts: Facts | None
    cost: int
    granted: int
    paid: int
    owed: int
    overrun: int

    @property
    def charged(self) -> int:
        return self.granted + self.paid + self.owed


NO_RECORD = Record("", None, 0, 0, 0, 0, 0)


@dataclass(slots=True)
class Call:
    """An admitted call and everything known of it."""

    hold: int
    state: str = "PENDING"
    resolved_by: str = ""
    lease_is_over: bool = False
    seen: Facts = NOTHING_SEEN
    records: list[Record] = field(default_factory=list)

    @property
    def newest(self) -> Record:
        return self.records[-1] if self.records else NO_RECORD

    @property
    def checkpoint(self) -> Facts | None:
        """What the sweeper settles to: nothing as long as no output was seen."""
        return self.seen if self.seen.completion else None

    def renew(self, facts: Facts) -> None:
        """A checkpoint: the lease begins anew, and counts never go back."""
        self.lease_is_over = False
        is_newer = 0 < facts.completion >= self.seen.completion
        self.seen = Facts(
            max(self.seen.prompt, facts.prompt),
            facts.cached if is_newer else self.seen.cached,
            0,
            max(self.seen.completion, facts.completion),
            max(self.seen.reasoning, facts.reasoning),
        )


@dataclass(slots=True)
class Purse:
    """One tenant's money in nano-units; `owed` counts upwards."""

    paid: int = 0
    granted: int = 0
    owed: int = 0
    pending: int = 0
    overdraft: int = 0

    @property
    def available(self) -> int:
        return self.paid + self.granted + self.overdraft - self.pending

    def top_up(self, amount: int) -> None:
        """Paid credit pays what is owed first."""
        repaid = min(amount, self.owed)
        self.owed -= repaid
        self.paid += amount - repaid

    def admit(self, hold: int) -> Call | None:
        """Hold the amount when it is there."""
        if hold > self.available:
            return None
        self.pending += hold
        return Call(hold)

    def settle(self, call: Call, facts: Facts | None) -> str:
        """The gateway's settlement, `facts` None for a void; what the door should answer."""
        known = [record for record in call.records if record.source == "GATEWAY"]
        if known or call.resolved_by == "GATEWAY":
            is_same = any(record.facts == facts for record in known)
            return "ALREADY_DONE" if is_same or (facts is None and not call.records) else "CONFLICT"
        if call.state == "PENDING":
            self._release(call, "VOIDED" if facts is None else "POSTED", "GATEWAY")
            if facts is None:
                return "SETTLED"
        elif facts is None and not call.records:
            return "ALREADY_DONE"
        self._post(call, "GATEWAY", facts)
        return "SETTLED"

    def sweep(self, call: Call) -> str:
        """The sweeper's settlement."""
        if call.state != "PENDING":
            return "ALREADY_DONE"
        if not call.lease_is_over:
            return "NOT_EXPIRED"
        self._release(call, "VOIDED" if call.checkpoint is None else "EXPIRED", "SWEEPER")
        if call.checkpoint is not None:
            self._post(call, "SWEEPER", call.checkpoint)
        return "SETTLED"

    def _release(self, call: Call, state: str, by: str) -> None:
        self.pending -= call.hold
        call.state, call.resolved_by = state, by

    def _post(self, call: Call, source: str, facts: Facts | None) -> None:
        before = call.newest
        cost = 0 if facts is None else price(facts)
        charged = min(cost, call.hold)
        granted, paid, owed = before.granted, before.paid, before.owed
        more, less = max(0, charged - before.charged), max(0, before.charged - charged)
        if more:
            free = min(more, max(0, self.available))
            from_granted = min(free, self.granted)
            granted, paid, owed = (
                granted + from_granted,
                paid + free - from_granted,
                owed + more - free,
            )
            self.granted -= from_granted
            self.paid -= free - from_granted
            self.owed += more - free
        if less:
            # In the opposite order: what is still owed, then paid credit (with what was owed and has
            # been paid since), then granted credit.
            forgiven = min(less, owed, self.owed)
            to_granted = max(0, less - (before.charged - granted))
            to_paid = less - forgiven - to_granted
            self.owed -= forgiven
            self.paid += to_paid
            self.granted += to_granted
            granted -= to_granted
            owed = min(owed - forgiven, charged - granted)
            paid = charged - granted - owed
        call.records.append(Record(source, facts, cost, granted, paid, owed, cost - charged))


def price(facts: Facts) -> int:
    """Nano-units of a usage: each class rounds half up by itself."""
    input_price = INPUT if facts.prompt < LONG_FROM else INPUT_LONG
    parts = (
        (facts.prompt - facts.cached - facts.image, input_price),
        (facts.cached, CACHED),
        (facts.image, input_price),
        (facts.completion - facts.reasoning, OUTPUT),
        (facts.reasoning, REASONING),
        (1, REQUEST),
    )
    return sum((2 * units * each + PER_MILLION) // (2 * PER_MILLION) for units, each in parts)


def hold_of(prompt_bound: int, output_cap: int, choices: int) -> int:
    """Nano-units that no usage within the bounds can exceed: the dearest lines, rounded up."""
    dearest_input = INPUT_LONG if prompt_bound >= LONG_FROM else INPUT
    prompt = -(-prompt_bound * dearest_input // PER_MILLION)
    output = -(-choices * output_cap * REASONING // PER_MILLION)
    return prompt + output + REQUEST // PER_MILLION + 2
