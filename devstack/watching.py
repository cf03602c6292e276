"""Keeping children running: notices an end, says why, and starts again with growing delays."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from devstack.process import Child, DevstackError, Pause

MAX_RESTARTS_A_MINUTE = 5
_FIRST_DELAY_S = 0.5
_MINUTE_S = 60.0
_IDLE_WAIT_S = 60.0


@dataclass(slots=True)
class Watched:
    """One thing to keep running. Without `restarts` its end is the end of the instance."""

    name: str
    start: Callable[[], Child]
    restarts: bool = True
    child: Child | None = None
    restart_at: float | None = None
    recent_restarts: deque[float] = field(default_factory=deque)

    def schedule_restart(self, now: float) -> float | None:
        """The delay before the next start, doubling within a minute; None when there were too many."""
        while self.recent_restarts and now - self.recent_restarts[0] > _MINUTE_S:
            self.recent_restarts.popleft()
        if len(self.recent_restarts) >= MAX_RESTARTS_A_MINUTE:
            return None
        delay: float = _FIRST_DELAY_S * 2 ** len(self.recent_restarts)
        self.recent_restarts.append(now)
        self.restart_at = now + delay
        return delay


class Watch:
    """All that is kept running, in the order in which it was added."""

    def __init__(
        self, *, pause: Pause, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause = pause
        self._say = say
        self._clock = clock
        self._watched: list[Watched] = []

    def add(self, watched: Watched) -> None:
        self._watched.append(watched)

    def children(self) -> list[Child]:
        return [watched.child for watched in self._watched if watched.child]

    def require_all_alive(self) -> None:
        """DevstackError, with the end of its log, when a child has ended."""
        for watched in self._watched:
            if watched.child and not watched.child.is_running():
                raise DevstackError(_epitaph(watched.child))

    def keep_running(self) -> NoReturn:
        """Watches until `pause` raises, or raises DevstackError when something cannot be kept running."""
        while True:
            now = self._clock()
            for watched in self._watched:
                if watched.restart_at is not None and watched.restart_at <= now:
                    watched.restart_at = None
                    watched.child = watched.start()
                    self._say(f"{watched.name} started again (process {watched.child.pid})")
                elif watched.child and not watched.child.is_running():
                    self._handle_end(watched, watched.child, now)
            due = [watched.restart_at for watched in self._watched if watched.restart_at is not None]
            self._pause(min(due) - self._clock() if due else _IDLE_WAIT_S)

    def _handle_end(self, watched: Watched, child: Child, now: float) -> None:
        watched.child = None
        if not watched.restarts:
            raise DevstackError(_epitaph(child))
        delay = watched.schedule_restart(now)
        if delay is None:
            raise DevstackError(
                f"{watched.name} ended {MAX_RESTARTS_A_MINUTE + 1} times within a minute. {_epitaph(child)}"
            )
        self._say(f"{_epitaph(child)}\n  Starting {watched.name} again in {delay:g} s.")


def _epitaph(child: Child) -> str:
    return (
        f"{child.name} ended unexpectedly ({child.describe_end()}). "
        f"The end of {child.log_path}:\n{child.log_tail()}"
    )
