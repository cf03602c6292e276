"""How much one person may do at a time in one process, so that nobody crowds out the others."""

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID


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


class Rate:
    """What happened within the last minute: messages of one socket, sockets of one person."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._at_s: deque[float] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing happened within the last minute."""
        self._forget(time.monotonic())
        return not self._at_s

    def allows(self) -> bool:
        """Notes one more and says whether it is within the limit."""
        now_s = time.monotonic()
        self._forget(now_s)
        if len(self._at_s) >= self._limit:
            return False
        self._at_s.append(now_s)
        return True

    def _forget(self, now_s: float) -> None:
        while self._at_s and now_s - self._at_s[0] > 60.0:
            self._at_s.popleft()


class Rates:
    """A rate for each person."""

    # How many people are remembered before those who do nothing are forgotten.
    _SWEPT_ABOVE = 1000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rates: dict[UUID, Rate] = {}

    def allows(self, user_id: UUID) -> bool:
        """Notes one more of this person and says whether it is within the limit."""
        if user_id not in self._rates and len(self._rates) >= self._SWEPT_ABOVE:
            self._rates = {one: rate for one, rate in self._rates.items() if not rate.is_idle}
        return self._rates.setdefault(user_id, Rate(self._limit)).allows()
