"""POST /v1/responses, of which nothing is kept: each call brings its whole conversation."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines import Endpoint, EngineAdapter, UsageReport
from models_catalog.engines.response_fields import (
    RESPONSES_COMMON,
    RESPONSES_OURS,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputItems,
    InputMessage,
    ReasoningItem,
    RefusalText,
    SchemaFormat,
    TextOptions,
)
from portal.inference.dialects.base import ModelRequest, Prompt
from portal.inference.dialects.named_events import event_type
from portal.inference.dialects.openai import OpenAIErrors
from portal.inference.dialects.reading import (
    FieldRules,
    check_images,
    check_passable,
    converted,
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

_STATELESS = "Nothing is kept between calls: send the whole conversation as input."
_RULES = FieldRules(
    ours=RESPONSES_OURS,
    common=RESPONSES_COMMON,
    takes_engine_fields=False,
    reasons={
        "store": "Responses are not stored; leave store out or send false.",
        "background": "Responses do not run in the background; leave background out.",
        "previous_response_id": f"previous_response_id is not offered. {_STATELESS}",
        "conversation": f"conversation is not offered. {_STATELESS}",
        "prompt": "Stored prompts are not offered; send instructions and input.",
        "truncation": "Input is never truncated; leave truncation out.",
        "max_tokens": "Responses name their cap max_output_tokens.",
    },
)
# Templates print them, with the text of the instructions.
_PRINTED = ("tools", "tool_choice", "text")

_CONTENT = re.compile(rb'"delta":\s?"(?!")')
_ENDS = frozenset({b"response.completed", b"response.incomplete"})
# They carry the response as it stands, with the model's name.
_WHOLE = frozenset({b"response.created", b"response.in_progress", b"response.queued", *_ENDS})
_FAILURES = frozenset({b"error", b"response.failed"})


class _InputDetails(Struct):
    cached_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Counted(Struct):
    usage: _Usage | None = None


class _Counts(Struct):
    """Of a whole answer, or of an event that holds one."""

    usage: _Usage | None = None
    response: _Counted | None = None


class _Part(Struct):
    text: Any = None


class _Item(Struct):
    content: list[_Part] | None = None
    arguments: Any = None


class _Response(Struct):
    object: str
    id: str | None = None
    status: str | None = None
    error: Any = None
    output: list[_Item] | None = None


class _Opening(Struct):
    response: _Response


_decode_counts = msgspec.json.Decoder(_Counts).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_opening = msgspec.json.Decoder(_Opening).decode


class ResponsesDialect(OpenAIErrors):
    endpoint = Endpoint.RESPONSES

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        known, passed = sort_fields(body, _RULES, entry=entry, engines=engines)
        if "input" not in known:
            raise missing("input")
        conversation = known["input"]
        items = [] if isinstance(conversation, str) else _read_items(conversation)
        texts, images = _texts(conversation, items)
        check_images(images, entry=entry, param="input")
        instructions = passed.get("instructions") or ""
        printed = {name: passed[name] for name in _PRINTED if name in passed}
        calls = sum(isinstance(item, FunctionCall | FunctionCallOutput) for item in items)
        text = "\n".join([instructions, *texts])
        # The instructions are a turn, and so is an input that is a text.
        bound = prompt_bound(
            text, printed=printed, turns=len(items) + 2, tool_calls=calls, images=images, entry=entry
        )
        estimated = estimate(text, context_tokens=entry.context_tokens) + printed_estimate(printed)
        if known.get("include") and "message.output_text.logprobs" in known["include"]:
            passed["include"] = ["message.output_text.logprobs"]
        return ModelRequest(
            dialect=self,
            model=entry.slug,
            prompts=(Prompt({"input": items or conversation}, max(1, min(estimated, bound))),),
            fields=passed,
            stream=bool(known.get("stream")),
            include_usage=True,
            output_cap_tokens=output_cap(
                "max_output_tokens",
                known.get("max_output_tokens"),
                entry=entry,
                estimated_prompt_tokens=estimated,
            ),
            prompt_bound_tokens=bound,
            choices=1,
            payload_sha256=hashlib.sha256(raw).hexdigest(),
            needs=needs_of(
                tools=passed.get("tools"),
                vision=images,
                logprobs=passed.get("include") or passed.get("top_logprobs"),
                json_schema=_wants_schema(passed.get("text")),
            ),
            prefix_key=prefix_key(instructions, *texts[:1]),
        )

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        run = EventRun()
        for event in events:
            kind = event_type(event)
            if kind in _FAILURES:
                run.has_failed = True
                break
            if kind in _WHOLE:
                try:
                    shown = name.in_member(event, "response")
                except UNREADABLE:
                    run.has_failed = True
                    break
                run.outgoing.append(shown)
                if kind in _ENDS:
                    run.usage_event, run.is_done = event, True
                    break
                continue
            if kind.endswith(b".delta") and _CONTENT.search(event):
                run.content_events += 1
            run.outgoing.append(event)
        return run

    def read_opening(self, event: bytes) -> str | None:
        data = event_data(event)
        if data is None:
            return None
        opening = _decode_opening(data).response
        if event_type(event) in _FAILURES or opening.error is not None:
            raise msgspec.DecodeError("the stream begins with a failure")
        return wire_id_of(opening.id)

    def read_plain(self, body: bytes) -> PlainAnswer:
        response = _decode_response(body)
        if response.object != "response" or response.error is not None or response.output is None:
            raise msgspec.DecodeError("an answer is a response without an error")
        if response.status not in ("completed", "incomplete"):
            raise msgspec.DecodeError("an answer is complete")
        pieces: list[str] = []
        for item in response.output:
            pieces += [part.text for part in item.content or () if isinstance(part.text, str)]
            if isinstance(item.arguments, str):
                pieces.append(item.arguments)
        return PlainAnswer(body, wire_id_of(response.id), "\n".join(pieces))

    def read_usage(
        self, data: bytes, *, engine: EngineAdapter, opening: bytes | None = None
    ) -> UsageReport | None:
        try:
            counts = _decode_counts(data)
        except UNREADABLE:
            return None
        usage = counts.usage or (counts.response.usage if counts.response else None)
        if usage is None or usage.output_tokens is None:
            return None
        inner, outer = usage.input_tokens_details, usage.output_tokens_details
        return UsageReport(
            prompt_tokens=usage.input_tokens,
            cached_tokens=(inner.cached_tokens if inner else None) or 0,
            completion_tokens=usage.output_tokens,
            reasoning_tokens=(outer.reasoning_tokens if outer else None) or 0,
            is_final=True,
        )

    def error_event(self, error: CallError, request_id: str) -> bytes:
        told = msgspec.json.decode(error.body(request_id))["error"]
        event = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: " + msgspec.json.encode({**event, "error": told}) + b"\n\n"


def _read_items(conversation: list[Any]) -> list[Any]:
    """The items of an input. A message may leave its type off."""
    check_passable("input", conversation)
    typed = [
        {"type": "message", **item} if isinstance(item, dict) and "type" not in item else item
        for item in conversation
    ]
    items: list[Any] = converted("input", typed, InputItems)
    return items


def _texts(conversation: str | list[Any], items: list[Any]) -> tuple[list[str], int]:
    """All text that a template may print, one piece an item, and the number of images."""
    if isinstance(conversation, str):
        return [conversation], 0
    texts: list[str] = []
    images = 0
    for item in items:
        pieces: list[str] = []
        if isinstance(item, FunctionCall):
            pieces = [item.name, item.arguments * 2, item.call_id]
        elif isinstance(item, ReasoningItem):
            pieces = [part.text for part in [*item.summary, *(item.content or ())]]
        else:
            content = item.content if isinstance(item, InputMessage) else item.output
            if isinstance(item, FunctionCallOutput):
                pieces.append(item.call_id)
            for part in [content] if isinstance(content, str) else content:
                if isinstance(part, InputImage):
                    # A backend must not be sent to fetch addresses that a client names.
                    if not part.image_url.startswith("data:image/"):
                        raise bad_request("Images must be sent as data: URLs.", param="input")
                    images += 1
                elif isinstance(part, str):
                    pieces.append(part)
                else:
                    pieces.append(part.refusal if isinstance(part, RefusalText) else part.text)
        texts.append("\n".join(pieces))
    return texts, images


def _wants_schema(text: Any) -> bool:
    return isinstance(text, TextOptions) and isinstance(text.format, SchemaFormat)


RESPONSES = ResponsesDialect()
