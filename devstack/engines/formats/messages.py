"""Anthropic's /v1/messages: blocks of content, and a count of input tokens that leaves out the cached ones.

What differs: when a stream begins, vLLM and SGLang do not know yet what is cached, so the count there
includes it; vLLM says it right in the end, SGLang never does.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from devstack.engines.call import Call
from devstack.engines.dialects.base import EngineError, Json
from devstack.engines.formats.base import Format, Stream, named_event
from devstack.engines.pieces import Piece

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_SIGNATURE = "c2ltdWxhdGVk"


class MessagesFormat(Format):
    """One message of several blocks. A second choice is not made of it."""

    endpoint = "messages"

    def plain(self, call: Call) -> Json:
        body: Json = {
            "id": call.wire_id,
            "type": "message",
            "role": "assistant",
            "content": self._blocks(call),
            "model": call.model,
            "stop_reason": _STOP_REASONS[call.finish_reason],
        }
        if self.dialect.flavour in ("llamacpp", "generic"):
            body["stop_sequence"] = None
        return body | self.dialect.usage_field(call, lambda output: self.usage(call, output))

    @staticmethod
    def _blocks(call: Call) -> list[Json]:
        said = call.said()
        blocks: list[Json] = []
        if said.reasoning:
            blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": _SIGNATURE})
        if said.content or not said.tools:
            blocks.append({"type": "text", "text": said.content})
        for tool_id, (name, arguments) in zip(call.tool_ids, said.tools, strict=False):
            blocks.append({"type": "tool_use", "id": tool_id, "name": name, "input": _decoded(arguments)})
        return blocks

    def usage(self, call: Call, output: int) -> Json:
        """The counts of a whole answer."""
        fresh = call.first_prompt_tokens - call.cached_tokens
        match self.dialect.flavour:
            case "llamacpp":
                counts = {"cache_read_input_tokens": call.cached_tokens, "input_tokens": fresh}
                return counts | {"output_tokens": output}
            case "sglang":
                counts = {"input_tokens": fresh, "output_tokens": output}
                return counts | {"cache_read_input_tokens": call.cached_tokens}
            case _:
                counts = {"input_tokens": fresh, "output_tokens": output}
                return counts | {
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": call.cached_tokens,
                }

    def stream(self, call: Call) -> Stream:
        return MessagesStream(self, call)

    def error(self, error: EngineError) -> EngineError:
        inner = error.body.get("error")
        source = inner if isinstance(inner, dict) else error.body
        message = source.get("message") or error.body.get("detail") or str(inner)
        kind = _ERROR_TYPES.get(error.status, "api_error")
        return EngineError(error.status, {"type": "error", "error": {"type": kind, "message": message}})

    def failure_body(self) -> Json:
        return self.error(EngineError(500, self.dialect.error_event())).body


class MessagesStream(Stream):
    """Each block is opened, filled and closed; then the end of the message is told."""

    def __init__(self, form: MessagesFormat, call: Call) -> None:
        super().__init__(form.dialect, call)
        self._form = form
        self._block = -1
        self._open: tuple[str, int] | None = None

    def opening(self) -> Iterator[bytes]:
        call = self.call
        message: Json = {
            "id": call.wire_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": call.model,
        }
        if self.dialect.flavour != "sglang":
            message |= {"stop_reason": None, "stop_sequence": None}
        if not self.dialect.hides_usage(call):
            message["usage"] = self._first_usage()
        yield named_event({"type": "message_start", "message": message})

    def _first_usage(self) -> Json:
        if self.dialect.flavour in ("llamacpp", "generic"):
            return self._form.usage(self.call, 0)
        return {"input_tokens": self.call.first_prompt_tokens, "output_tokens": 0}

    def token(self, step: int) -> Iterator[tuple[bytes, int]]:
        piece = self.call.piece(step)
        block = ("tool" if piece.kind.startswith("tool") else piece.kind, piece.tool)
        if block != self._open:
            for event in self._close():
                yield event, 0
            self._block += 1
            self._open = block
            opened = {"type": "content_block_start", "index": self._block, "content_block": self._new(piece)}
            yield named_event(opened), int(piece.kind == "tool_name")
        if piece.kind != "tool_name":
            delta = {"type": "content_block_delta", "index": self._block, "delta": _delta(piece)}
            yield named_event(delta), 1

    def _new(self, piece: Piece) -> Json:
        match piece.kind:
            case "reasoning":
                return {"type": "thinking", "thinking": ""}
            case "content":
                return {"type": "text", "text": ""}
            case _:
                head = {"type": "tool_use", "id": self.call.tool_ids[piece.tool], "name": piece.text}
                return head | {"input": {}}

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open[0] == "reasoning":
            signature = {"type": "signature_delta", "signature": _SIGNATURE}
            yield named_event({"type": "content_block_delta", "index": self._block, "delta": signature})
        yield named_event({"type": "content_block_stop", "index": self._block})
        self._open = None

    def ending(self) -> Iterator[bytes]:
        yield from self._close()
        delta: Json = {"stop_reason": _STOP_REASONS[self.call.finish_reason]}
        if self.dialect.flavour != "sglang":
            delta["stop_sequence"] = None
        usage = self.dialect.usage_field(self.call, self._last_usage)
        yield named_event({"type": "message_delta", "delta": delta, **usage})

    def _last_usage(self, output: int) -> Json:
        if self.dialect.flavour in ("llamacpp", "sglang"):
            return {"output_tokens": output}
        return self._form.usage(self.call, output)

    def last(self) -> bytes:
        return named_event({"type": "message_stop"})

    def failure(self) -> bytes:
        return named_event(self._form.failure_body())


def _delta(piece: Piece) -> Json:
    match piece.kind:
        case "reasoning":
            return {"type": "thinking_delta", "thinking": piece.text}
        case "content":
            return {"type": "text_delta", "text": piece.text}
        case _:
            return {"type": "input_json_delta", "partial_json": piece.text}


def _decoded(arguments: str) -> object:
    """The arguments as a value; one that the cap has cut is none."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return {}
