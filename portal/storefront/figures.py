"""Numbers that the system measures of itself, kept for a minute: no visitor waits for them twice.

They are sums and medians over every organization and tell nothing of any. What could not be measured, or
of which there is too little, is None, and pages say so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError, connections, transaction
from redis.exceptions import RedisError

from quotas.metering.queries import ModelSpeed, median_ttft_ms, model_speeds, requests_since
from quotas.metering.queries.activity import DAY, MIN_SPEED_SAMPLES
from quotas.reconciliation.queries import witness_report
from quotas.reconciliation.witness import BackendWitness
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

FRESH: Final = timedelta(seconds=60)
# Older ones are shown while somebody measures anew, but not for ever.
KEPT_S: Final = 600
MEASURING_S: Final = 30
STATEMENT_TIMEOUT_MS: Final = 5_000
KEY: Final = "storefront:figures:1"
LOCK: Final = f"{KEY}:measuring"

MeasuredT = TypeVar("MeasuredT")


@dataclass(frozen=True, slots=True)
class Figures:
    """requests_today: settled calls since midnight UTC. ttft_ms: median of SPEED_DAYS over all models.

    confirmed_tokens of witnessed_tokens, of the last day: counted alike by the backends and by the gateway.
    speeds: by slug.
    """

    measured_at: datetime
    requests_today: int | None = None
    ttft_ms: int | None = None
    confirmed_tokens: int | None = None
    witnessed_tokens: int | None = None
    speeds: dict[str, ModelSpeed] = field(default_factory=dict)

    @property
    def confirmed_hundredths(self) -> int | None:
        """The confirmed share in hundredths of a percent, rounded down: 10,000 means every token."""
        if self.confirmed_tokens is None or not self.witnessed_tokens:
            return None
        return 10_000 * self.confirmed_tokens // self.witnessed_tokens

    @property
    def confirmed_text(self) -> str:
        """`99.98 %`; empty when it is not known."""
        hundredths = self.confirmed_hundredths
        if hundredths is None:
            return ""
        return f"{hundredths // 100} %" if hundredths == 10_000 else f"{hundredths / 100:.2f} %"


# What this process measured last, for the time that Valkey is away.
_remembered: list[Figures] = []


def service_figures(*, now: datetime) -> Figures:
    """The numbers, at most FRESH old, or up to KEPT_S while another process measures. Never fails."""
    try:
        kept = _read(cache.get(KEY))
        is_ours = kept is None or now - kept.measured_at >= FRESH
        if kept is not None and (not is_ours or not cache.add(LOCK, "1", MEASURING_S)):
            return kept
    except RedisError:
        kept = _remembered[-1] if _remembered else None
        if kept is not None and now - kept.measured_at < FRESH:
            return kept
    figures = measure(now=now)
    _remembered[:] = [figures]
    try:
        cache.set(KEY, _write(figures), KEPT_S)
    except RedisError:
        logger.info("storefront.figures.not_kept")
    return figures


def measure(*, now: datetime) -> Figures:
    """Ask the database now, as the operator, each number for itself: one that fails leaves the others."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with role_scope("operator"):
        confirmed = _try("confirmed", lambda: _confirmed(_report(now)))
        return Figures(
            measured_at=now,
            requests_today=_try("requests_today", lambda: requests_since(since=midnight)),
            ttft_ms=_try("ttft", lambda: median_ttft_ms(now=now)),
            confirmed_tokens=confirmed[0] if confirmed else None,
            witnessed_tokens=confirmed[1] if confirmed else None,
            speeds=_try("speeds", lambda: model_speeds(now=now)) or {},
        )


def _try(name: str, ask: Callable[[], MeasuredT]) -> MeasuredT | None:
    try:
        with transaction.atomic(using=scope_alias()):
            with connections[scope_alias()].cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
            return ask()
    except OperationalError:
        logger.warning("storefront.figures.failed", extra={"figure": name}, exc_info=True)
        return None


def _report(now: datetime) -> list[BackendWitness]:
    return witness_report(
        now=now,
        window=DAY,
        sample_s=settings.TUNING["SLUICE_SAMPLE_S"],
        call_timeout_s=settings.TUNING["SLUICE_CALL_TIMEOUT_S"],
    )


def _confirmed(report: Sequence[BackendWitness]) -> tuple[int, int] | None:
    """Tokens that both witnesses saw, and tokens that either saw; None after too few calls.

    The smaller count is what both agree on. Whatever could not be compared counts against us.
    """
    lives = [life for backend in report for life in backend.witnesses]
    if sum(life.attempts for life in lives) < MIN_SPEED_SAMPLES:
        return None
    sides = [side for life in lives for side in (life.prompt, life.completion)]
    both = sum(max(0, min(side.counted_tokens, side.metered_tokens)) for side in sides)
    either = sum(max(side.counted_tokens, side.metered_tokens) for side in sides)
    return both, either + sum(backend.unknown_tokens for backend in report)


def _write(figures: Figures) -> str:
    return json.dumps(asdict(figures), default=str)


def _read(text: Any) -> Figures | None:
    """None for what is not there, and for what another version of the program has left there."""
    try:
        values = json.loads(text)
        speeds = {
            slug: ModelSpeed(**{**speed, "model_id": UUID(speed["model_id"])})
            for slug, speed in values["speeds"].items()
        }
        measured_at = datetime.fromisoformat(values["measured_at"])
        return Figures(**{**values, "speeds": speeds, "measured_at": measured_at})
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
