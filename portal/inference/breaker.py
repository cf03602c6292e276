"""A circuit breaker: a deployment that fails again and again is left alone for a while, then tried with one
call, and after that gets its load back little by little."""

from enum import StrEnum

# So many failures in a row open it, or this share of the last ones.
FAILURES_IN_A_ROW = 5
FAILED_SHARE = 0.5
# How much one outcome moves the share, and how many outcomes it rests on at least.
SHARE_STEP = 0.1
SHARE_SAMPLES = 10
NEGLIGIBLE = 0.001
# How long it stays open: at first, and at most after probes that failed.
OPEN_S = 5.0
MAX_OPEN_S = 60.0
# For how long a probe that was chosen, or sent, keeps others from being one.
PROBE_S = 5.0
# From a tenth of its capacity to all of it.
SLOW_START_S = 15.0
SLOW_START_SHARE = 0.1


class BreakerState(StrEnum):
    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Breaker:
    """Every time is of one monotonic clock, in seconds.

    reason: why it opened last, as the outcome or a word of whoever opened it. is_silent: it opened because
    the deployment did not answer at all, so that a caller would wait for nothing.
    """

    __slots__ = (
        "_closed_at_s",
        "_failed_share",
        "_failures",
        "_open_s",
        "_open_until_s",
        "_probe_until_s",
        "_samples",
        "is_silent",
        "reason",
        "since_s",
        "state",
    )

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.reason = ""
        self.is_silent = False
        self.since_s = 0.0
        self._failures = 0
        self._failed_share = 0.0
        self._samples = 0
        self._open_s = OPEN_S
        self._open_until_s = 0.0
        self._probe_until_s = 0.0
        self._closed_at_s: float | None = None

    def is_clear(self, now_s: float) -> bool:
        """Closed, and long enough to have its whole load."""
        return self.state is BreakerState.CLOSED and self.share(now_s) >= 1.0

    def share(self, now_s: float) -> float:
        """Which part of its capacity it gets after it has closed again, from SLOW_START_SHARE to 1."""
        if self._closed_at_s is None:
            return 1.0
        part = (now_s - self._closed_at_s) / SLOW_START_S
        if part >= 1:
            self._closed_at_s = None
            return 1.0
        return SLOW_START_SHARE + (1 - SLOW_START_SHARE) * max(0.0, part)

    def look(self, now_s: float) -> BreakerState:
        """The state now: what was open for long enough waits for its probe."""
        if self.state is BreakerState.OPEN and now_s >= self._open_until_s:
            self._enter(BreakerState.HALF_OPEN, now_s)
            self._probe_until_s = 0.0
        return self.state

    def claim_probe(self, now_s: float) -> bool:
        """Whether the next call is the one that tries a half-open deployment. At most one has the claim."""
        if self.look(now_s) is not BreakerState.HALF_OPEN or now_s < self._probe_until_s:
            return False
        self._probe_until_s = now_s + PROBE_S
        return True

    def probing(self, now_s: float) -> None:
        """A call has been sent. While half open nobody else tries until it has ended, or for PROBE_S: an
        answer may be long, and a deployment that is well need not wait for its end."""
        if self.state is BreakerState.HALF_OPEN:
            self._probe_until_s = now_s + PROBE_S

    def succeeded(self, now_s: float) -> None:
        """A call was served. While it is open that says nothing new: the call had begun before."""
        if self.state is BreakerState.CLOSED and not self._failures and self._failed_share < NEGLIGIBLE:
            # As nearly always.
            self._samples += 1
            return
        self._failures = 0
        self._note(0.0)
        if self.look(now_s) is BreakerState.HALF_OPEN:
            self._enter(BreakerState.CLOSED, now_s)
            self._open_s = OPEN_S
            self.begin_slowly(now_s)

    def failed(self, now_s: float, reason: str, *, is_silent: bool) -> bool:
        """A call failed. True when that opened it."""
        self._failures += 1
        self._note(1.0)
        state = self.look(now_s)
        if state is BreakerState.HALF_OPEN:
            self._open_s = min(MAX_OPEN_S, self._open_s * 2)
        elif state is BreakerState.OPEN or not (
            self._failures >= FAILURES_IN_A_ROW
            or (self._samples >= SHARE_SAMPLES and self._failed_share > FAILED_SHARE)
        ):
            return False
        self.reason, self.is_silent = reason, is_silent
        self._open_until_s = now_s + self._open_s
        self._enter(BreakerState.OPEN, now_s)
        return True

    def try_again(self, now_s: float) -> None:
        """There is a sign that it answers again: its probe need not wait."""
        if self.state is BreakerState.OPEN:
            self._open_until_s = now_s
            self._open_s = OPEN_S

    def begin_slowly(self, now_s: float) -> None:
        """Give its load back little by little from now on."""
        self._closed_at_s = now_s

    def _enter(self, state: BreakerState, now_s: float) -> None:
        self.state = state
        self.since_s = now_s
        if state is BreakerState.CLOSED:
            self._failures = self._samples = 0
            self._failed_share = 0.0

    def _note(self, failed: float) -> None:
        self._samples += 1
        self._failed_share += SHARE_STEP * (failed - self._failed_share)
