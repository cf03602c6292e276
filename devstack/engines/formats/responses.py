"""/v1/responses: an answer of items (message, calls of tools, reasoning), and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect, Header, Json
from devstack.engines.formats.base import Format, Stream, named_event
from devstack.engines.formats.response_shells import ResponseStyle, style_of
from devstack.engines.pieces import Piece


class ResponsesFormat(Format):
    """Stateless: nothing can be continued or fetched again."""

    endpoint = "responses"

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self.style = style_of(dialect)

    def plain(self, call: Call) -> Json:
        return self.style.whole(call, self.items(call), plain=True)

    def stream_head(self) -> list[Header]:
        caching: list[Header] = [(b"cache-control", b"no-cache")] if self.dialect.flavour == "sglang" else []
        return caching + super().stream_head()

    def items(self, call: Call) -> list[Json]:
        """What a finished call has put out."""
        said = call.said()
        items: list[Json] = []
        if said.reasoning:
            items.append(reasoning_item(self.new_id("rs_"), said.reasoning))
        if said.content or not said.tools:
            part = self.style.part(said.content)
            items.append(self.style.message(self.new_id("msg_"), [part], "completed"))
        for tool_id, (name, arguments) in zip(call.tool_ids, said.tools, strict=False):
            items.append(function_item(self.new_id("fc_"), tool_id, name, arguments, "completed"))
        return items

    def new_id(self, prefix: str) -> str:
        """The id of an item."""
        return prefix + self.dialect.random_hex(32)

    def stream(self, call: Call) -> Stream:
        return ResponsesStream(self, call)


def reasoning_item(item_id: str, text: str) -> Json:
    """An item with what was thought; empty while it is not."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"id": item_id, "type": "reasoning", "summary": [], "content": content}


def function_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> Json:
    """An item that calls a tool."""
    head = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
    return head | {"arguments": arguments, "status": status}


@dataclass(slots=True)
class _OpenItem:
    kind: str
    tool: int
    item_id: str
    index: int
    text: str = ""
    name: str = ""


class ResponsesStream(Stream):
    """Each item is added, filled and done; the last event carries the whole answer again, with usage."""

    def __init__(self, form: ResponsesFormat, call: Call) -> None:
        super().__init__(form.dialect, call)
        self._form = form
        self._style: ResponseStyle = form.style
        self._sequence = 0
        self._item: _OpenItem | None = None
        self._done: list[Json] = []

    def _event(self, kind: str, **fields: object) -> bytes:
        body: Json = {"type": kind, **fields}
        if self._style.has_positions:
            body["sequence_number"] = self._sequence
            self._sequence += 1
        else:
            body.pop("output_index", None)
            body.pop("content_index", None)
        return named_event(body)

    def opening(self) -> Iterator[bytes]:
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._style.begun(self.call))

    def token(self, step: int) -> Iterator[tuple[bytes, int]]:
        piece = self.call.piece(step)
        kind = "tool" if piece.kind.startswith("tool") else piece.kind
        if self._item is None or (self._item.kind, self._item.tool) != (kind, piece.tool):
            for event in self._close():
                yield event, 0
            added = list(self._open(kind, piece))
            for event in added[:-1]:
                yield event, 0
            yield added[-1], int(piece.kind == "tool_name")
        item = self._item
        assert item is not None
        if piece.kind == "tool_name":
            return
        item.text += piece.text
        yield self._delta(item, piece), 1

    def _open(self, kind: str, piece: Piece) -> Iterator[bytes]:
        index, prefix = len(self._done), {"reasoning": "rs_", "content": "msg_"}.get(kind, "fc_")
        item = self._item = _OpenItem(kind, piece.tool, self._form.new_id(prefix), index, name=piece.text)
        yield self._event(
            "response.output_item.added", output_index=index, item=self._shape(item, "in_progress")
        )
        if kind == "content":
            yield self._event(
                "response.content_part.added",
                item_id=item.item_id,
                output_index=index,
                content_index=0,
                part=self._style.first_part(),
            )

    def _shape(self, item: _OpenItem, status: str) -> Json:
        match item.kind:
            case "reasoning":
                return reasoning_item(item.item_id, item.text)
            case "content":
                parts = [self._style.part(item.text)] if status == "completed" else []
                return self._style.message(item.item_id, parts, status)
            case _:
                tool_id = self.call.tool_ids[item.tool]
                return function_item(item.item_id, tool_id, item.name, item.text, status)

    def _delta(self, item: _OpenItem, piece: Piece) -> bytes:
        where: Json = {"item_id": item.item_id, "output_index": item.index}
        match piece.kind:
            case "content":
                rest: Json = {"logprobs": []} if self._style.has_positions else {}
                where |= {"content_index": 0, "delta": piece.text, **rest}
                return self._event("response.output_text.delta", **where)
            case "reasoning":
                return self._event(
                    "response.reasoning_text.delta", **where, content_index=0, delta=piece.text
                )
            case _:
                return self._event("response.function_call_arguments.delta", **where, delta=piece.text)

    def _close(self) -> Iterator[bytes]:
        item, self._item = self._item, None
        if item is None:
            return
        where: Json = {"item_id": item.item_id, "output_index": item.index}
        match item.kind:
            case "content":
                rest: Json = {"logprobs": []} if self._style.has_positions else {}
                yield self._event(
                    "response.output_text.done", **where, content_index=0, text=item.text, **rest
                )
                part = self._style.part(item.text)
                yield self._event("response.content_part.done", **where, content_index=0, part=part)
            case "reasoning":
                yield self._event("response.reasoning_text.done", **where, content_index=0, text=item.text)
            case _:
                yield self._event("response.function_call_arguments.done", **where, arguments=item.text)
        shape = self._shape(item, "completed")
        self._done.append(shape)
        yield self._event("response.output_item.done", output_index=item.index, item=shape)

    def ending(self) -> Iterator[bytes]:
        yield from self._close()

    def last(self) -> bytes:
        call = self.call
        whole = self._style.whole(call, self._done, plain=False)
        kind = "response.incomplete" if self._style.says_incomplete(call) else "response.completed"
        return self._event(kind, response=whole, **self._style.beside(call))

    def failure(self) -> bytes:
        message = self.dialect.error_event()["error"]["message"]
        return self._event("error", code="server_error", message=message, param=None)
