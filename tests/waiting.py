"""Waiting for what another process does, without ever sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

POLL_S = 0.02


def wait_for(condition: Callable[[], ResultT], timeout_s: float, what: str = "the condition") -> ResultT:
    """Ask again and again until the answer is true, and return it.

    timeout_s: seconds until it is given up. Errors: TimeoutError, naming `what` and the last answer;
    what the condition raises passes through.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: still {answer!r} after {timeout_s} s")
        time.sleep(POLL_S)
