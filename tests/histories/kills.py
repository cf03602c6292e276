"""Workers that die: between any two statements to the database, and before or after any request to Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import stripe
from django.db import connections

ALIASES = ("operator", "tenant", "auth", "default")


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing that the product catches may catch it."""


class Reaper:
    """Ends the work under way at one of its steps: a statement that is about to run, a request that is about
    to be sent, or an answer that has come and is not yet known to anybody."""

    def __init__(self) -> None:
        self._steps_left: int | None = None

    @contextmanager
    def due_after(self, steps: int | None) -> Iterator[None]:
        """Death comes at this step of the block; with None it does not. It is swallowed at the end of it."""
        self._steps_left = steps
        try:
            yield
        except Killed:
            pass
        finally:
            self._steps_left = None

    def step(self) -> None:
        if self._steps_left is None:
            return
        self._steps_left -= 1
        if self._steps_left < 0:
            self._steps_left = None
            raise Killed

    def before_statement(
        self, execute: Any, statement: Any, parameters: Any, many: bool, context: Any
    ) -> Any:
        self.step()
        return execute(statement, parameters, many, context)


@contextmanager
def reaping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reaper]:
    """A reaper that sees every statement of this thread and every request of the Stripe SDK."""
    reaper = Reaper()
    ask = stripe.RequestsClient.request

    def asked(self: Any, *arguments: Any, **options: Any) -> Any:
        reaper.step()
        answer = ask(self, *arguments, **options)
        reaper.step()
        return answer

    monkeypatch.setattr(stripe.RequestsClient, "request", asked)
    with ExitStack() as wrapped:
        for alias in ALIASES:
            wrapped.enter_context(connections[alias].execute_wrapper(reaper.before_statement))
        yield reaper
