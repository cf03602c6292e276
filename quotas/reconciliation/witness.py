"""The arithmetic of two witnesses: what a backend counted, what the gateway metered, and what may lie
between them.

Each cause of a difference says how many tokens it can account for at the least and at the most, from what
was admitted and what was reported. A difference inside the sum of those bounds is explained; what sticks
out is not, however busy the backend is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class CauseKind(StrEnum):
    """Why the two may differ. The first two are about time and go away by themselves."""

    IN_FLIGHT = "IN_FLIGHT"  # open at the last sample: counted by the backend, not yet by us
    ACROSS_START = "ACROSS_START"  # not over for both sides at the first sample: counted partly before it
    CLIENT_GONE = "CLIENT_GONE"  # the backend went on for a while after the client had left
    CUT = "CUT"  # ended by us: lease, drain, time limit of a call
    TIMEOUT = "TIMEOUT"  # the backend was too slow, and was left
    FAILED = "FAILED"  # the backend broke off: what it had generated nobody read
    LOST = "LOST"  # our process died: the backend's last words were not read
    NO_FINAL_USAGE = "NO_FINAL_USAGE"  # it completed without saying what it used
    CACHED_UNKNOWN = "CACHED_UNKNOWN"  # an old engine hides cached tokens, and of several choices we keep one


class WitnessState(StrEnum):
    AGREES = "AGREES"  # at rest, and the difference is 0
    EXPLAINED = "EXPLAINED"  # at rest, and the causes account for the difference
    MOVING = "MOVING"  # something runs, and what runs accounts for the difference
    UNEXPLAINED = "UNEXPLAINED"
    INCOMPLETE = "INCOMPLETE"  # what was compared agrees, but not everything could be, or not lately
    WAITING = "WAITING"  # two samples of one incarnation are needed, and there are not
    UNREADABLE = "UNREADABLE"  # the counters were never read


@dataclass(frozen=True, slots=True)
class Bounds:
    """Tokens, at the least and at the most."""

    low: int = 0
    high: int = 0

    def __add__(self, other: "Bounds") -> "Bounds":
        return Bounds(self.low + other.low, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a difference (counter − metered): the attempts it concerns and its bounds."""

    kind: CauseKind
    attempts: int
    prompt: Bounds
    completion: Bounds


@dataclass(frozen=True, slots=True)
class Comparison:
    """One class of tokens: as counted by the backend, as metered by the gateway. `explained` is the part
    of the difference that the causes account for."""

    counted_tokens: int
    metered_tokens: int
    explained_tokens: int

    @property
    def difference_tokens(self) -> int:
        return self.counted_tokens - self.metered_tokens

    @property
    def unexplained_tokens(self) -> int:
        """Above 0: the backend served what the gateway knows nothing of. Below: it counted less than it
        reported to us."""
        return self.difference_tokens - self.explained_tokens


def compare(counted_tokens: int, metered_tokens: int, bounds: Sequence[Bounds]) -> Comparison:
    """How far the causes' bounds together account for the difference."""
    total = sum(bounds, Bounds())
    difference = counted_tokens - metered_tokens
    return Comparison(counted_tokens, metered_tokens, min(max(difference, total.low), total.high))


@dataclass(frozen=True, slots=True)
class Witness:
    """Both sides of one life (incarnation) of a backend's process in a window.

    from_at and to_at are the moments of the samples that were compared. `running` is what the engine
    said at the last of them; `attempts` are ours that ended in between. The recent tokens are of those that
    ended so shortly before the last sample that a working engine may not have counted them yet.
    """

    incarnation: int
    from_at: datetime
    to_at: datetime
    attempts: int
    in_flight: int
    running: int | None
    prompt: Comparison
    completion: Comparison
    causes: tuple[Cause, ...]
    recent_prompt_tokens: int = 0
    recent_completion_tokens: int = 0

    @property
    def is_at_rest(self) -> bool:
        """Nothing was in flight on either side when the last sample was taken, so that whatever had been
        served was counted by both."""
        return self.in_flight == 0 and not self.running

    @property
    def is_unexplained(self) -> bool:
        return self.prompt.unexplained_tokens != 0 or self.completion.unexplained_tokens != 0

    @property
    def state(self) -> WitnessState:
        if self.from_at == self.to_at:
            return WitnessState.WAITING
        # While the engine works, counters may lag a little behind what was reported; they never run ahead.
        may_lag = not self.is_at_rest
        for side, recent_tokens in (
            (self.prompt, self.recent_prompt_tokens),
            (self.completion, self.recent_completion_tokens),
        ):
            lowest = -recent_tokens if may_lag else 0
            if not lowest <= side.unexplained_tokens <= 0:
                return WitnessState.UNEXPLAINED
        if not self.is_at_rest:
            return WitnessState.MOVING
        if self.prompt.difference_tokens or self.completion.difference_tokens:
            return WitnessState.EXPLAINED
        return WitnessState.AGREES


@dataclass(frozen=True, slots=True)
class BackendWitness:
    """What is known of one backend in a window; newest incarnation first.

    read_at: when its counters were last read. failing_since and error: since when that fails, and how.
    is_stale: the last reading is older than it should be. unknown_attempts: ours that ended where no
    two samples of one incarnation stand around them, so that they cannot be compared.
    """

    backend_id: UUID
    code: str
    engine: str
    fleet_state: str
    read_at: datetime | None
    failing_since: datetime | None
    error: str
    is_stale: bool
    witnesses: tuple[Witness, ...]
    unknown_attempts: int
    unknown_tokens: int

    @property
    def newest(self) -> Witness | None:
        return self.witnesses[0] if self.witnesses else None

    @property
    def state(self) -> WitnessState:
        """The worst of the incarnations'."""
        states = {witness.state for witness in self.witnesses}
        for state in (WitnessState.UNEXPLAINED, WitnessState.MOVING):
            if state in states:
                return state
        if self.read_at is None:
            return WitnessState.UNREADABLE
        for state in (WitnessState.EXPLAINED, WitnessState.AGREES):
            if state in states:
                return WitnessState.INCOMPLETE if self.is_stale or self.unknown_attempts else state
        return WitnessState.WAITING
