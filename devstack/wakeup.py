"""Waiting for what happens next: a signal, the end of a child, or a point in time."""

from __future__ import annotations

import select
import signal
import socket
import time
from types import FrameType

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `make` passes a SIGTERM on to us that a terminal or a script may have sent to the whole group already.
_SAME_REQUEST_S = 1.0


class StopRequested(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM or SIGHUP."""


class Wakeup:
    """Takes over the signals. The first stop request makes `pause` raise; a later one sets `hurry`."""

    def __init__(self) -> None:
        self.hurry = False
        self._requested_at: float | None = None
        self._stopping = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            # nohup leaves SIGHUP ignored, and means it. SIGINT is ignored in a shell's background job by
            # accident.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, _on_child_signal)

    def pause(self, seconds: float) -> None:
        """Waits up to `seconds` or for a signal; raises StopRequested unless the stop has begun."""
        if not self._stop_is_new():
            select.select([self._reader], [], [], max(0.0, seconds))
            self._drain()
        if self._stop_is_new():
            self._stopping = True
            raise StopRequested

    def begin_stop(self) -> None:
        """From now on `pause` no longer raises; a stop request from now on means: hurry."""
        self._stopping = True

    def hurried(self) -> bool:
        return self.hurry

    def _stop_is_new(self) -> bool:
        return self._requested_at is not None and not self._stopping

    def _drain(self) -> None:
        try:
            while self._reader.recv(4096):
                pass
        except BlockingIOError:
            return

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
        elif now - self._requested_at > _SAME_REQUEST_S:
            self.hurry = True


def _on_child_signal(number: int, frame: FrameType | None) -> None:
    """Only there so that the end of a child wakes the waiting `select` through the wake-up descriptor."""
