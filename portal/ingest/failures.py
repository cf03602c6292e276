"""How often somebody may fail to prove who they are. Whoever proves it is never held up by that."""

from __future__ import annotations

import logging
from typing import Final

from django.core.cache import cache
from django.http import HttpRequest

logger = logging.getLogger(__name__)

MAX_FAILURES: Final = 60
WINDOW_S: Final = 60


def too_many_failures(request: HttpRequest) -> bool:
    """Counts one more of this address; whether it has failed too often within the last minute. Where the
    cache is away, nobody has."""
    key = f"ingest:failures:{request.META.get('REMOTE_ADDR', '')}"
    try:
        cache.add(key, 0, WINDOW_S)
        return cache.incr(key) > MAX_FAILURES
    except ValueError:
        # It ended between the two.
        return False
    except Exception:  # noqa: BLE001 - of whatever library the cache is made
        logger.warning("portal.ingest.failures_not_counted")
        return False
