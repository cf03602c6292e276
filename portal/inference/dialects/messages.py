"""POST /v1/messages: Anthropic's form, which counts cached tokens beside the input and not within it."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines import Endpoint, EngineAdapter, UsageReport
from models_catalog.engines.message_fields import (
    MESSAGES_COMMON,
    MESSAGES_OURS,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ThinkingOn,
    ToolResult,
    ToolUse,
    UrlSource,
)
from portal.inference.dialects.base import ModelRequest, Prompt
from portal.inference.dialects.named_events import event_type
from portal.inference.dialects.reading import (
    INDENTED_FACTOR,
    FieldRules,
    check_images,
    check_passable,
    estimate,
    missing,
    needs_of,
    output_cap,
    prefix_key,
    printed_estimate,
    prompt_bound,
    sort_fields,
)
from portal.inference.errors import CallError, bad_request
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import UNREADABLE, PlainAnswer, wire_id_of
from portal.kit.sse import event_data

_RULES = FieldRules(
    ours=MESSAGES_OURS,
    common=MESSAGES_COMMON,
    takes_engine_fields=False,
    reasons={
        "n": "A message has one choice.",
        "stop": "Messages name it stop_sequences.",
        "mcp_servers": "Tools are run by the client; mcp_servers is not offered.",
    },
)
_PRINTED = ("tools", "tool_choice")

_CONTENT = re.compile(rb'"(?:text|thinking|partial_json)":\s?"(?!")')

# Anthropic's types of errors; what has no entry is api_error.
_ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Counted(Struct):
    usage: _Usage | None = None


class _Counts(Struct):
    """Of a whole answer or a message_delta, or of a message_start."""

    usage: _Usage | None = None
    message: _Counted | None = None


class _Block(Struct):
    text: Any = None
    thinking: Any = None
    input: msgspec.Raw = msgspec.Raw(b"")


class _Message(Struct):
    type: str
    id: str | None = None
    content: list[_Block] | None = None


class _Opening(Struct):
    type: str
    message: _Message | None = None


_decode_counts = msgspec.json.Decoder(_Counts).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_opening = msgspec.json.Decoder(_Opening).decode


class MessagesDialect:
    endpoint = Endpoint.MESSAGES

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        known, passed = sort_fields(body, _RULES, entry=entry, engines=engines)
        for name in ("messages", "max_tokens"):
            if name not in known:
                raise missing(name)
        _check_thinking(passed.get("thinking"), max_tokens=known["max_tokens"])
        check_passable("messages", body["messages"])
        turns = known["messages"]
        blocks = [block for turn in turns if isinstance(turn.content, list) for block in turn.content]
        images = _count_images(blocks)
        check_images(images, entry=entry, param="messages")
        system = _text_of(passed.get("system") or "")
        texts = [system, *(_text_of(turn.content) for turn in turns)]
        used = [msgspec.json.encode(block.input).decode() for block in blocks if isinstance(block, ToolUse)]
        printed = {name: passed[name] for name in _PRINTED if name in passed}
        tool_blocks = sum(isinstance(block, ToolUse | ToolResult) for block in blocks)
        bound = prompt_bound(
            "\n".join(texts),
            printed=printed,
            turns=len(turns) + len(blocks) + 1,
            tool_calls=tool_blocks,
            images=images,
            entry=entry,
            further_tokens=sum(len(text.encode()) for text in used) * INDENTED_FACTOR,
        )
        estimated = estimate("\n".join([*texts, *used]), context_tokens=entry.context_tokens)
        estimated += printed_estimate(printed)
        return ModelRequest(
            dialect=self,
            model=entry.slug,
            prompts=(Prompt({"messages": turns}, max(1, min(estimated, bound))),),
            fields=passed,
            stream=bool(known.get("stream")),
            include_usage=True,
            output_cap_tokens=output_cap(
                "max_tokens", known["max_tokens"], entry=entry, estimated_prompt_tokens=estimated
            ),
            prompt_bound_tokens=bound,
            choices=1,
            payload_sha256=hashlib.sha256(raw).hexdigest(),
            needs=needs_of(tools=passed.get("tools"), vision=images),
            prefix_key=prefix_key(*texts[:2]),
        )

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        run = EventRun()
        for event in events:
            kind = event_type(event)
            if kind == b"content_block_delta":
                if _CONTENT.search(event):
                    run.content_events += 1
            elif kind == b"message_start":
                run.usage_event = run.opening_usage = event
                try:
                    run.outgoing.append(name.in_member(event, "message"))
                except UNREADABLE:
                    run.has_failed = True
                    break
                continue
            elif kind == b"message_delta":
                run.usage_event = event
            elif kind == b"message_stop":
                run.is_done = True
                run.outgoing.append(event)
                break
            elif kind == b"error":
                run.has_failed = True
                break
            run.outgoing.append(event)
        return run

    def read_opening(self, event: bytes) -> str | None:
        data = event_data(event)
        if data is None:
            return None
        opening = _decode_opening(data)
        if opening.type == "ping":
            return None
        if opening.type != "message_start" or opening.message is None:
            raise msgspec.DecodeError("a stream begins with message_start")
        return wire_id_of(opening.message.id)

    def read_plain(self, body: bytes) -> PlainAnswer:
        message = _decode_message(body)
        if message.type != "message" or message.content is None:
            raise msgspec.DecodeError("an answer is a message")
        pieces: list[str] = []
        for block in message.content:
            pieces += [part for part in (block.text, block.thinking) if isinstance(part, str)]
            pieces.append(bytes(block.input).decode())
        return PlainAnswer(body, wire_id_of(message.id), "\n".join(pieces))

    def read_usage(
        self, data: bytes, *, engine: EngineAdapter, opening: bytes | None = None
    ) -> UsageReport | None:
        """At its beginning a stream counts the input, and some engines do so only there."""
        counts = _counts_in(data)
        # What a beginning says of the output, if anything, is not what will have been delivered.
        is_beginning = counts.usage is None and counts.message is not None
        usage = counts.message.usage if is_beginning and counts.message else counts.usage
        if usage is None or (usage.output_tokens is None and not is_beginning):
            return None
        begun = _counts_in(opening).message if opening is not None else None
        first = (begun.usage if begun else None) or _Usage()
        read = _first_known(usage.cache_read_input_tokens, first.cache_read_input_tokens)
        created = _first_known(usage.cache_creation_input_tokens, first.cache_creation_input_tokens)
        return UsageReport(
            prompt_tokens=_first_known(usage.input_tokens, first.input_tokens) + read + created,
            cached_tokens=read,
            completion_tokens=0 if is_beginning else usage.output_tokens or 0,
            reasoning_tokens=0,
            is_final=not is_beginning,
        )

    def error_body(self, error: CallError, request_id: str) -> bytes:
        told = {
            "type": _ERROR_TYPES.get(error.status, "api_error"),
            "message": error.message,
            "code": error.code,
            "param": error.param,
            **error.details,
        }
        return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})

    def error_event(self, error: CallError, request_id: str) -> bytes:
        return b"event: error\ndata: " + self.error_body(error, request_id) + b"\n\n"


def _counts_in(data: bytes) -> _Counts:
    try:
        return _decode_counts(data)
    except UNREADABLE:
        return _Counts()


def _first_known(*counts: int | None) -> int:
    # Each is a part of a sum: one below zero must not make the others smaller.
    return max(0, next((count for count in counts if count is not None), 0))


def _check_thinking(thinking: ThinkingOn | Any, *, max_tokens: int) -> None:
    """Raises CallError 400."""
    if isinstance(thinking, ThinkingOn) and thinking.budget_tokens >= max_tokens:
        raise bad_request(
            f"thinking.budget_tokens is {thinking.budget_tokens}; it must be below max_tokens, which is "
            f"{max_tokens}.",
            param="thinking",
        )


def _count_images(blocks: list[Any]) -> int:
    count = 0
    for block in blocks:
        inner = (
            block.content if isinstance(block, ToolResult) and isinstance(block.content, list) else [block]
        )
        for part in inner:
            if isinstance(part, ImageBlock):
                # A backend must not be sent to fetch addresses that a client names.
                if isinstance(part.source, UrlSource):
                    raise bad_request("Images must be sent as base64.", param="messages")
                count += 1
    return count


def _text_of(content: str | list[Any]) -> str:
    """All text that a template may print of a turn or of the system's words; what tools were given is not
    among it."""
    if isinstance(content, str):
        return content
    pieces: list[str] = []
    for block in content:
        if isinstance(block, TextBlock):
            pieces.append(block.text)
        elif isinstance(block, ThinkingBlock):
            pieces.append(block.thinking)
        elif isinstance(block, ToolUse):
            pieces += [block.name, block.id]
        elif isinstance(block, ToolResult):
            pieces.append(block.tool_use_id)
            if isinstance(block.content, str | list):
                pieces.append(_text_of(block.content))
    return "\n".join(pieces)


MESSAGES = MessagesDialect()
