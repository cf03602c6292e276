"""How choices become one answer: passed through when there is one, merged when there are several."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from portal.inference.choice import ChoiceRun
from portal.inference.conduit import Writer
from portal.inference.upstream_answers import UNREADABLE
from portal.kit.sse import event_data
from quotas.metering.facts import UsageFacts

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Sink(Protocol):
    """Where the answer goes: whole, or begun and sent piece by piece. Each returns when the bytes have
    left for the client.

    writer: the same for pieces that must not wait for a task; None where sending takes more than that.
    """

    @property
    def writer(self) -> Writer | None: ...

    def add_headers(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """To be told with whatever is answered, where answers have headers."""
        ...

    async def answer(self, body: bytes, *, content_type: bytes) -> None: ...

    async def start(self, *, status: int, content_type: bytes) -> None: ...

    async def send(self, data: bytes) -> None: ...


class DirectOutlet:
    """The only choice of a call: bytes go to the client as the backend sent them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.writer: Writer | None = sink.writer

    async def begin(self) -> None:
        await self._sink.start(status=200, content_type=b"text/event-stream")

    async def send(self, events: list[bytes]) -> None:
        await self._sink.send(b"".join(events) if len(events) > 1 else events[0])

    async def answer(self, choice: ChoiceRun) -> None:
        choice.deliver_plain()
        if choice.plain is not None:
            await self._sink.answer(choice.shown_plain(), content_type=b"application/json")


class MergedStream:
    """What the choices of one stream share: it begins once, has one id and names the model as we do."""

    def __init__(self, sink: Sink, *, model: str) -> None:
        self.sink = sink
        self._model = model
        self.last_event: dict[str, Any] = {}
        self._id: str | None = None
        self._is_begun = False

    async def begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            await self.sink.start(status=200, content_type=b"text/event-stream")

    def rewrite(self, event: bytes, index: int) -> bytes:
        """The event under the common id and with the choice's own number. Backends know one choice only."""
        data = event_data(event)
        if data is None:
            return event
        try:
            value = _decode(data)
        except UNREADABLE:
            return b""
        self._id = self._id or value.get("id")
        value["id"] = self._id
        value["model"] = self._model
        for choice in value.get("choices") or ():
            choice["index"] = index
        # Running counts are of one choice and would mislead beside the others.
        for name in ("usage", "timings"):
            value.pop(name, None)
        self.last_event = value
        return b"data: " + msgspec.json.encode(value) + b"\n\n"

    async def finish(self, usage: UsageFacts | None, told: Mapping[str, str | None]) -> None:
        """The common end: usage of all choices when asked for, with what else it tells, and the end mark."""
        end = b"data: [DONE]\n\n"
        if usage is not None:
            last = {**self.last_event, "choices": [], "usage": {**usage_block(usage), **told}}
            end = b"data: " + msgspec.json.encode(last) + b"\n\n" + end
        await self.sink.send(end)


class MergedOutlet:
    """One of several choices."""

    writer: Writer | None = None

    def __init__(self, stream: MergedStream, index: int) -> None:
        self._stream = stream
        self._index = index

    async def begin(self) -> None:
        await self._stream.begin()

    async def send(self, events: list[bytes]) -> None:
        rewritten = b"".join(self._stream.rewrite(event, self._index) for event in events)
        if rewritten:
            await self._stream.sink.send(rewritten)

    async def answer(self, choice: ChoiceRun) -> None:
        """Whole answers are sent together, when the last one is there."""


def merged_answer(choices: Sequence[ChoiceRun], usage: UsageFacts, *, model: str) -> bytes:
    """One answer of several whole ones: their choices in order, their usage together."""
    merged: dict[str, Any] = {}
    for index, run in enumerate(choices):
        if run.plain is None:
            continue
        value = _decode(run.plain.body)
        found = [{**choice, "index": index} for choice in value.get("choices") or ()]
        merged = merged or {**value, "choices": []}
        merged["choices"] += found
    merged.pop("timings", None)
    merged |= {"model": model, "usage": usage_block(usage)}
    return msgspec.json.encode(merged)


def usage_block(usage: UsageFacts) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
