"""Metrics of reconciliation. They stand in the database, so whoever answers a scrape reads them there."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from django.db import DatabaseError

from portal.kit import metrics
from quotas.reconciliation.reports import reconciliation_summary, watermarks
from quotas.reconciliation.windows.policy import window_policy
from tenants.queries import database_time
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

FEED_LAG = metrics.gauge("feed_lag_seconds", "How far a usage feed's watermark lies behind.", ["feed"])
FEED_HOLDS_UP = metrics.gauge(
    "feed_holds_up", "Whether windows and invoices wait for a feed (1), or no longer do (2).", ["feed"]
)
TOKENS = metrics.gauge(
    "control_tokens",
    "Tokens of the windows of the last day: counted by the backend, and who accounts for them.",
    ["backend", "part"],
)
MATCHED_SHARE = metrics.gauge("matched_share", "Matched share of a backend's last day, 0 to 1.", ["backend"])
UNEXPLAINED = metrics.gauge(
    "unexplained_tokens", "Tokens of a backend's last day that nothing explains.", ["backend"]
)
TOO_MUCH = metrics.gauge(
    "unexplained_too_much", "Whether more is unexplained than SLUICE_UNEXPLAINED_ALERT_PPM.", ["backend"]
)
QUARANTINED = metrics.gauge("quarantined_lines", "Lines of feeds that could not be read.")
WAITING = metrics.gauge("corrections_waiting", "Corrections that wait for an operator's approval.")
DISCREPANCIES = metrics.gauge("discrepancies_open", "Differences that nobody has decided about.")
SUSPENSE = metrics.gauge("suspense_tokens", "Tokens in suspense that nobody has explained.")

# Whoever scrapes more often gets what was read last.
FRESH_S: Final = 10.0


class _Reader:
    """Reads them anew, one caller at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due_at_s = 0.0

    def refresh(self) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            if time.monotonic() >= self._due_at_s:
                _read()
                self._due_at_s = time.monotonic() + FRESH_S
        except DatabaseError:
            logger.exception("quotas.reconciliation.metrics_not_read")
        finally:
            self._lock.release()


_reader: Final = _Reader()


def refresh() -> None:
    """Read them anew, unless that was done a moment ago. What cannot be read stays as it was."""
    _reader.refresh()


def _read() -> None:
    with role_scope("operator"):
        now = database_time()
        feeds = watermarks(now=now)
        summary = reconciliation_summary(now=now, marks=feeds)
    for gauge in (FEED_LAG, FEED_HOLDS_UP, TOKENS, MATCHED_SHARE, UNEXPLAINED, TOO_MUCH):
        gauge.clear()
    for feed in feeds:
        FEED_LAG.labels(feed.feed_code).set(feed.lag_s)
        FEED_HOLDS_UP.labels(feed.feed_code).set(2 if feed.is_overdue else int(feed.is_blocking))
    for one in summary.backends:
        code = one.backend_code
        TOKENS.labels(code, "counter").set(one.counter_tokens)
        TOKENS.labels(code, "matched").set(one.matched_tokens)
        TOKENS.labels(code, "explained").set(one.explained_tokens)
        TOKENS.labels(code, "suspense").set(one.suspense_tokens)
        MATCHED_SHARE.labels(code).set(one.matched_share)
        UNEXPLAINED.labels(code).set(one.unexplained_tokens)
        TOO_MUCH.labels(code).set(one.is_too_much(window_policy().alert_ppm))
    QUARANTINED.set(summary.quarantined_lines)
    WAITING.set(summary.waiting_approvals)
    DISCREPANCIES.set(summary.open_discrepancies)
    SUSPENSE.set(summary.open_suspense_tokens)
