"""What passes from a backend's socket to a client's in one turn: in order, held back, noted when it left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from portal.inference.conduit import Conduit
from portal.inference.stream_events import EventRun
from portal.inference.wire import BrokenOff, Response
from portal.inference.wire.connection import WireConnection
from portal.kit.sse import EventSplitter


class Transport:
    """Of a backend's connection."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_aborted = False

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def abort(self) -> None:
        self.is_aborted = True


class Client:
    """Takes everything at once, or lets it wait while it is slow."""

    def __init__(self) -> None:
        self.is_slow = False
        self.written: list[bytes] = []
        self.callback: Callable[[], None] | None = None

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return not self.is_slow

    def when_writable(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def drain(self) -> None:
        self.is_slow = False
        callback, self.callback = self.callback, None
        assert callback is not None
        callback()


class Scene:
    """A stream that has begun."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.client = Client()
        self.noted: list[bytes] = []
        self.may_deliver = True
        # A pool is only told of ends that do not occur here.
        self.connection = WireConnection(None)  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)
        self.response = Response(self.connection, 0.0)
        self.connection._response = self.response
        self.conduit = Conduit(
            self.response,
            self.client,
            splitter=EventSplitter(1000),
            read=self.read,
            note=lambda run: self.noted.extend(run.outgoing),
            may_deliver=lambda: self.may_deliver,
        )
        self.passing = asyncio.ensure_future(self.conduit.passed())

    @staticmethod
    def read(events: Sequence[bytes]) -> EventRun:
        is_done = any(b"DONE" in event for event in events)
        return EventRun(outgoing=[event for event in events if b"hidden" not in event], is_done=is_done)


A, B, DONE = b"data: a\n\n", b"data: b\n\n", b"data: DONE\n\n"


@pytest.fixture
async def scene() -> Scene:
    made = Scene()
    await asyncio.sleep(0)
    return made


async def test_what_arrives_together_leaves_together(scene: Scene) -> None:
    scene.response.feed(A + b"data: hid")
    scene.response.feed(b"den\n\n" + B)
    scene.response.feed(DONE)
    assert scene.client.written == [A, B, DONE]
    assert scene.noted == [A, B, DONE]
    assert (await scene.passing).is_done


async def test_what_a_slow_client_has_not_got_is_not_noted(scene: Scene) -> None:
    scene.client.is_slow = True
    scene.response.feed(A)
    assert (scene.transport.is_paused, scene.conduit.waits_for_client) == (True, True)
    assert (scene.client.written, scene.noted) == ([A], [])
    # A backend's last bytes may be on their way already.
    scene.response.feed(B)
    scene.client.drain()
    assert scene.noted == [A, B]
    assert [scene.conduit.waits_for_client, scene.transport.is_paused] == [False, False]


async def test_counts_are_noted_after_what_they_count(scene: Scene) -> None:
    usage: list[str] = []
    scene.conduit._note = lambda run: usage.extend("content" if run.outgoing else "counts" for _ in "1")
    scene.client.is_slow = True
    scene.response.feed(A)
    scene.response.feed(b"data: hidden\n\n")
    assert usage == []
    scene.client.drain()
    assert usage == ["content", "counts"]


async def test_a_stream_is_over_when_its_end_has_left(scene: Scene) -> None:
    scene.client.is_slow = True
    scene.response.feed(A + DONE)
    scene.response.end(None)
    await asyncio.sleep(0)
    assert not scene.passing.done()
    scene.client.drain()
    assert (await scene.passing).is_done
    assert scene.noted == [A, DONE]


async def test_nothing_is_passed_on_once_it_may_not(scene: Scene) -> None:
    scene.response.feed(A)
    scene.may_deliver = False
    scene.response.feed(B)
    scene.may_deliver = True
    scene.response.feed(B)
    assert scene.client.written == scene.noted == [A]
    await asyncio.sleep(0)
    assert not scene.passing.done()
    scene.passing.cancel()


async def test_a_backend_that_breaks_off(scene: Scene) -> None:
    scene.response.feed(A + b"data: half")
    scene.response.end(BrokenOff("gone"))
    with pytest.raises(BrokenOff):
        await scene.passing
    assert scene.noted == [A]


async def test_an_event_without_end(scene: Scene) -> None:
    scene.response.feed(A + b"x" * 2000)
    assert not (await scene.passing).is_done
    assert scene.noted == [A]


async def test_what_arrived_before_goes_first() -> None:
    scene = Scene()
    scene.response.feed(A)
    scene.response.feed(DONE)
    assert (await scene.passing).is_done
    assert scene.client.written == [A + DONE] or scene.client.written == [A, DONE]
