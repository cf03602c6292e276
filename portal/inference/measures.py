"""Metrics of the inference path."""

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter

from portal.kit import metrics

ADMISSIONS = metrics.counter("admissions_total", "Admissions by what became of them.", ["answer"])
LIMITS_UNKNOWN = metrics.counter(
    "rate_limits_unknown_total", "Look-ups of rate limits that failed; the last known ones or none applied."
)
FLOOR_MISSED = metrics.counter(
    "floor_seconds_missed_total", "Seconds whose flow did not reach the factory floor's meter."
)
SETTLEMENTS = metrics.counter("settlements_total", "Settlements by what became of them.", ["answer"])
CHECKPOINTS = metrics.counter("checkpoints_total", "Checkpoint batches.", ["answer"])
OVERRUNS = metrics.counter("overruns_total", "Calls whose measured cost exceeded what was held.")
ATTEMPTS = metrics.counter("attempts_total", "Attempts by backend and outcome.", ["backend", "outcome"])
ANSWERS = metrics.counter("answers_total", "Answers of the gateway by HTTP status.", ["status"])
LIVE_CALLS = metrics.gauge("live_calls", "Calls in progress in this process.")
FIRST_BYTE_SECONDS = metrics.histogram(
    "first_byte_seconds", "From sending an attempt to its first event.", ["backend"]
)
_BATCH_SIZE = metrics.histogram("batch_rows", "Rows in a group commit.", ["batch"])
_BATCH_SECONDS = metrics.histogram("batch_seconds", "Duration of a group commit.", ["batch"])


# Finding a metric's child costs more than counting does. Labels come from small sets, so all are kept.
admissions = cache(ADMISSIONS.labels)
settlements = cache(SETTLEMENTS.labels)
attempts = cache(ATTEMPTS.labels)
first_byte_seconds = cache(FIRST_BYTE_SECONDS.labels)


@cache
def answers(status: int | None) -> Counter:
    return ANSWERS.labels(str(status or "none"))


def observe_batch(name: str) -> Callable[[int, float], None]:
    size, seconds = _BATCH_SIZE.labels(name), _BATCH_SECONDS.labels(name)

    def observe(rows: int, duration_s: float) -> None:
        size.observe(rows)
        seconds.observe(duration_s)

    return observe
