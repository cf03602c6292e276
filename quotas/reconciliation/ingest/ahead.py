"""One batch is read while the one before it is taken: the database works on another core meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing follows, or what came instead of it."""

    failure: BaseException | None = None


class _Reader(Generic[T]):
    """Runs an iterator in a thread of its own, no more than one item ahead of whoever takes them."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._ready: queue.Queue[T | _End] = queue.Queue(maxsize=1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="feed-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._ready.get()
            if not isinstance(item, _End):
                yield item
            elif item.failure is None:
                return
            else:
                raise item.failure

    def close(self) -> None:
        """Waits until the thread has ended, whose file may then be closed."""
        self._is_over.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _read(self) -> None:
        end = _End()
        try:
            for item in self._items:
                self._ready.put(item)
                if self._is_over.is_set():
                    return
        except BaseException as failure:  # noqa: BLE001 - whoever takes the items raises it
            end = _End(failure)
        self._ready.put(end)


@contextmanager
def read_ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same items, in their order. The iterator runs in another thread, so it may not ask the database."""
    reader = _Reader(items)
    try:
        yield iter(reader)
    finally:
        reader.close()
