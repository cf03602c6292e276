"""An event loop whose clock jumps: sleeping costs nothing, and every schedule is the same each time."""

import asyncio
import functools
import gc
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

Result = TypeVar("Result")
Params = ParamSpec("Params")

_MAX_WAITS = 200_000


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._waits = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for something that never happens")
        self._waits += 1
        assert self._waits < _MAX_WAITS, "the test does not come to an end"
        self.now += max(0.0, timeout)
        return super().select(0)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def now() -> float:
    """The running loop's clock, for whatever takes a clock as a parameter."""
    return asyncio.get_running_loop().time()


def run_in_fake_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine to its end; no task may be left, and no error may have gone unseen."""
    unseen: list[Mapping[str, object]] = []

    async def whole() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        result = await work
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        result = runner.run(whole())
        # The loop reports errors that nobody fetched when their futures are collected.
        gc.collect(1)
        assert unseen == [], unseen
    return result


def in_fake_time(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Make a plain test function of a coroutine function."""

    @functools.wraps(test)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        run_in_fake_time(test(*args, **kwargs))

    return run
