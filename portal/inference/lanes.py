"""What one gateway knows of each deployment: how many calls it has, how long they take, if it answers."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING
from uuid import UUID

from models_catalog.fleet.curve import Curve
from portal.inference.breaker import Breaker

if TYPE_CHECKING:
    from portal.inference.snapshot import Route

# Of a deployment that nobody has measured: times of an ordinary one, until calls show what they really are.
DEFAULT_TTFT_S = 0.3
DEFAULT_INTER_TOKEN_S = 0.03
# How much slower such a one is taken to be when it has as many calls as it serves well.
DEFAULT_SLOWDOWN = 1.0
# Curves are in whole milliseconds: less than half of one is no time at all there.
LEAST_MEASURED_TTFT_S = 0.0005
# Times are kept for each number of calls up to this.
MAX_TABLE = 4096
# How much of what a call took differently is believed, and how differently it can count at most, as natural
# logarithm. The first calls count as their mean.
LEARNING = 0.1
MAX_STEP = 1.0
FIRST_CALLS = 5
# Beyond so many calls one is looked at in this time.
EVERY_CALL = 50
LEARN_EVERY_S = 0.02
# What is learned may differ by so many times from a measured curve; much more where there is none.
MAX_CORRECTION = 8.0
MAX_CORRECTION_UNMEASURED = 10_000.0
# Without calls, what was learned loses half of its weight in this time: a deployment that was slow once must
# not be avoided for ever.
FORGET_HALF_LIFE_S = 300.0
# A prompt that is short beside the measured ones still takes this part of the measured time.
LEAST_TTFT_SHARE = 0.2
OUTPUT_LEARNING = 0.05
# Of the time of a call that was answered in one piece: from here on its parts cannot be told apart.
ONE_PIECE_SHARE = 0.9


class ModelStats:
    """What the calls of one model are like. mean_output: tokens; 0 as long as nothing is known.

    The logarithms are what was learned of its deployments without a curve: another one of them is taken to
    be like those until its own calls show what it is.
    """

    __slots__ = ("inter_token_log", "mean_output", "ttft_log")

    def __init__(self) -> None:
        self.mean_output = 0.0
        self.ttft_log = self.inter_token_log = 0.0

    def note_factors(self, ttft_log: float, inter_token_log: float) -> None:
        self.ttft_log += LEARNING * (ttft_log - self.ttft_log)
        self.inter_token_log += LEARNING * (inter_token_log - self.inter_token_log)

    def note_output(self, tokens: int) -> None:
        if self.mean_output:
            self.mean_output += OUTPUT_LEARNING * (tokens - self.mean_output)
        else:
            self.mean_output = float(tokens)


class BackendLoad:
    """A backend with all that runs on it. load: 1.0 is as much as it serves well, of all its deployments and
    of every gateway, as of the last `weigh`. is_down: it does not answer its health checks; `reason` is how.
    """

    __slots__ = (
        "backend_id",
        "code",
        "is_down",
        "is_stale",
        "lanes",
        "load",
        "reason",
        "since_s",
        "succeeded_at_s",
    )

    def __init__(self, backend_id: UUID, code: str) -> None:
        self.backend_id = backend_id
        self.code = code
        self.lanes: list[Lane] = []
        self.load = 0.0
        self.is_stale = False
        self.is_down = False
        self.reason = ""
        self.since_s = 0.0
        self.succeeded_at_s = float("-inf")

    def weigh(self) -> None:
        """Work its load out anew, after the calls of a deployment have changed."""
        load = 0.0
        for lane in self.lanes:
            load += (lane.in_flight + lane.coming + lane.elsewhere) / lane.capacity
        self.load = load
        self.is_stale = False


class Lane:
    """One deployment. in_flight: calls of this process; elsewhere: of the other gateways. coming: calls that
    were given to it and are being admitted.

    capacity: calls at a time that it serves well. is_clear: neither its breaker nor its health nor a slow
    start is to be looked at. next_…, prefill_s and least_ttft_s are what `expected_s` is made of, as of the
    last `weigh`; is_stale: something has changed since then.
    """

    __slots__ = (
        "_curve",
        "_inter_token_log",
        "_inter_token_s",
        "_learned_at_s",
        "_limit_log",
        "_prefill_s",
        "_probe_prompt",
        "_samples",
        "_size",
        "_ttft_log",
        "_ttft_s",
        "backend",
        "breaker",
        "capacity",
        "coming",
        "cost_nanos",
        "elsewhere",
        "in_flight",
        "inter_token_factor",
        "is_clear",
        "is_limited",
        "is_stale",
        "least_ttft_s",
        "mean_prompt",
        "model",
        "next_inter_token_s",
        "next_ttft_s",
        "prefill_s",
        "route",
        "ttft_factor",
        "without_usage",
    )

    def __init__(self, route: Route, backend: BackendLoad, model: ModelStats) -> None:
        self.backend = backend
        self.model = model
        self.breaker = Breaker()
        self.in_flight = 0
        self.coming = 0
        self.elsewhere = 0
        self.is_clear = True
        self.is_stale = True
        self.mean_prompt = 0.0
        self.ttft_factor = self.inter_token_factor = 1.0
        self.without_usage = 0
        self._ttft_log = self._inter_token_log = 0.0
        self._learned_at_s = 0.0
        self._samples = 0
        self._curve: Curve | None = None
        self._ttft_s: list[float] = []
        self.capacity = 0
        self.set_route(route)
        backend.lanes.append(self)

    @property
    def calls(self) -> int:
        return self.in_flight + self.elsewhere

    def set_route(self, route: Route) -> None:
        """What the catalog says of it now. What was learned stays, unless it was measured anew."""
        self.route = route
        self.is_limited = route.capabilities is not None or route.context_tokens is not None
        self.cost_nanos = route.marginal_cost_nanos
        curve = route.curve
        capacity = route.max_concurrency
        if curve is not None and 0 < curve.certified_concurrency < capacity:
            capacity = curve.certified_concurrency
        if curve == self._curve and capacity == self.capacity:
            return
        if curve is not None and curve != self._curve:
            self._ttft_log = self._inter_token_log = 0.0
            self.ttft_factor = self.inter_token_factor = 1.0
            self._samples = FIRST_CALLS
        self._curve = curve
        self.capacity = capacity
        self._limit_log = log(MAX_CORRECTION if curve is not None else MAX_CORRECTION_UNMEASURED)
        self._tabulate(curve, capacity)
        self.weigh()

    def changed(self) -> None:
        """Its calls, or what is known of them, have changed."""
        self.is_stale = self.backend.is_stale = True

    def _tabulate(self, curve: Curve | None, capacity: int) -> None:
        if curve is None:
            self._size = min(capacity, MAX_TABLE)
            slower = [1 + DEFAULT_SLOWDOWN * calls / self._size for calls in range(self._size + 1)]
            times = [(DEFAULT_TTFT_S * factor, DEFAULT_INTER_TOKEN_S * factor) for factor in slower]
            self._probe_prompt, self._prefill_s = 0, 0.0
        else:
            self._size = min(curve.points[-1].concurrency, MAX_TABLE)
            times = [curve.times_at(max(1, calls)) for calls in range(self._size + 1)]
            self._probe_prompt, self._prefill_s = curve.prompt_tokens, curve.prefill_ns / 1e9
        self._ttft_s = [max(ttft_s, LEAST_MEASURED_TTFT_S) for ttft_s, _ in times]
        self._inter_token_s = [inter_token_s for _, inter_token_s in times]

    def weigh(self) -> None:
        """Work out anew what the next call may expect, after anything has changed."""
        calls = self.in_flight + self.coming + self.elsewhere + 1
        # Beyond the table it does no more than at its end, so all calls take longer in proportion.
        stretch = 1.0 if calls <= self._size else calls / self._size
        place = calls if calls <= self._size else self._size
        ttft_s = self._ttft_s[place] * stretch * self.ttft_factor
        self.prefill_s = self._prefill_s * self.ttft_factor
        self.next_ttft_s = ttft_s - self._probe_prompt * self.prefill_s
        self.least_ttft_s = ttft_s * LEAST_TTFT_SHARE
        self.next_inter_token_s = self._inter_token_s[place] * stretch * self.inter_token_factor
        self.is_stale = False

    def expected_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """How long a call that is sent now takes to its end. The router has this inline."""
        self.weigh()
        ttft_s = max(self.next_ttft_s + prompt_tokens * self.prefill_s, self.least_ttft_s)
        return ttft_s + output_tokens * self.next_inter_token_s

    def _times_now(self) -> tuple[float, float]:
        """Seconds to the first token of an ordinary prompt, and between tokens, with the calls that it has,
        as the curve says."""
        calls = max(1, self.in_flight + self.elsewhere)
        stretch = max(1.0, calls / self._size)
        place = min(calls, self._size)
        ttft_s, inter_token_s = self._ttft_s[place] * stretch, self._inter_token_s[place] * stretch
        longer_s = ttft_s + (self.mean_prompt - self._probe_prompt) * self._prefill_s
        return max(longer_s, ttft_s * LEAST_TTFT_SHARE), inter_token_s

    def learn(self, now_s: float, ttft_s: float, duration_s: float, tokens: int) -> None:
        """A call has been served: correct what is expected. One call moves it by a little at most, so that
        neither a slow reader nor a single odd call turns traffic away. Of many calls a few are enough."""
        if self._samples > EVERY_CALL and now_s - self._learned_at_s < LEARN_EVERY_S:
            return
        if not self._samples and self._curve is None:
            self._set(self.model.ttft_log, self.model.inter_token_log)
        expected_ttft_s, expected_token_s = self._times_now()
        self._learned_at_s = now_s
        self._samples += 1
        if ttft_s >= duration_s * ONE_PIECE_SHARE:
            # Answered in one piece: only the whole can be compared.
            ratio = duration_s / (
                expected_ttft_s * self.ttft_factor + tokens * expected_token_s * self.inter_token_factor
            )
            step = self._step(ratio)
            self._set(self._ttft_log + step, self._inter_token_log + step)
        else:
            step = self._step(ttft_s / (expected_ttft_s * self.ttft_factor))
            token_step = 0.0
            if tokens > 1:
                between_s = (duration_s - ttft_s) / (tokens - 1)
                token_step = self._step(between_s / (expected_token_s * self.inter_token_factor))
            self._set(self._ttft_log + step, self._inter_token_log + token_step)
        if self._curve is None:
            self.model.note_factors(self._ttft_log, self._inter_token_log)

    def forget(self, now_s: float, elapsed_s: float) -> None:
        """Called every now and then: what was learned fades where no calls confirm it, towards the curve, or
        towards the other deployments of the model where there is none."""
        if self.calls or now_s - self._learned_at_s <= elapsed_s:
            return
        ttft_log, inter_token_log = 0.0, 0.0
        if self._curve is None:
            ttft_log, inter_token_log = self.model.ttft_log, self.model.inter_token_log
        kept = 0.5 ** (elapsed_s / FORGET_HALF_LIFE_S) if self._samples else 0.0
        self._set(
            ttft_log + kept * (self._ttft_log - ttft_log),
            inter_token_log + kept * (self._inter_token_log - inter_token_log),
        )

    def note_prompt(self, tokens: int) -> None:
        if self.mean_prompt:
            self.mean_prompt += OUTPUT_LEARNING * (tokens - self.mean_prompt)
        else:
            self.mean_prompt = float(tokens)

    def _set(self, ttft_log: float, inter_token_log: float) -> None:
        limit = self._limit_log
        self._ttft_log = max(-limit, min(limit, ttft_log))
        self._inter_token_log = max(-limit, min(limit, inter_token_log))
        self.ttft_factor = exp(self._ttft_log)
        self.inter_token_factor = exp(self._inter_token_log)

    def _step(self, ratio: float) -> float:
        step = log(max(ratio, 1e-6))
        if self._samples <= FIRST_CALLS:
            return step / self._samples
        return max(LEARNING, 1 / self._samples) * max(-MAX_STEP, min(MAX_STEP, step))
