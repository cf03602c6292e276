"""Where journeys reach behind the pages: a thread of its own for everything that asks the database.

The browser's library keeps an event loop in the thread of the tests, and Django refuses to query there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

TIMEOUT_S = 60.0


class Backstage:
    """Calls functions that use the ORM: `backstage(make_tenant, "CNY")`. What they raise comes through."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    def __call__(
        self, function: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        return self._executor.submit(function, *args, **kwargs).result(TIMEOUT_S)


@contextmanager
def open_backstage() -> Iterator[Backstage]:
    from django.db import connections

    with ThreadPoolExecutor(1, thread_name_prefix="backstage") as executor:
        backstage = Backstage(executor)
        try:
            yield backstage
        finally:
            # Connections belong to the thread that opened them.
            backstage(connections.close_all)
