"""How much one person may do at a time in one process, so that nobody crowds out the others."""

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

MAX_SOCKETS_PER_USER = 12
MAX_RUNS_PER_USER = 4
MAX_MESSAGES_PER_MINUTE = 120


class TooMany(Exception):
    """The person has as many of these open as anybody may have."""


class Places:
    """Counts what each person has open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[UUID] = Counter()

    @contextmanager
    def take(self, user_id: UUID) -> Iterator[None]:
        """Holds a place as long as the block runs. Raises TooMany."""
        if self._taken[user_id] >= self._limit:
            raise TooMany
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]


class MessageRate:
    """Messages of one socket within the last minute."""

    def __init__(self, limit: int = MAX_MESSAGES_PER_MINUTE) -> None:
        self._limit = limit
        self._at_s: deque[float] = deque()

    def allows(self) -> bool:
        """Notes one more message and says whether it is within the limit."""
        now_s = time.monotonic()
        while self._at_s and now_s - self._at_s[0] > 60.0:
            self._at_s.popleft()
        if len(self._at_s) >= self._limit:
            return False
        self._at_s.append(now_s)
        return True


SOCKETS = Places(MAX_SOCKETS_PER_USER)
RUNS = Places(MAX_RUNS_PER_USER)
