"""Reads a chat request: what the client may send, how large it can get, and what is passed on."""

import hashlib
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from models_catalog.engines import ChatCall, EngineAdapter
from models_catalog.engines.fields import (
    COMMON_FIELDS,
    GATEWAY_FIELDS,
    RESERVED_FIELDS,
    ImagePart,
    UserMessage,
)
from portal.inference.errors import bad_request
from portal.inference.snapshot import ModelEntry
from quotas.metering.facts import estimate_tokens

# Each choice is a call of its own to a backend.
MAX_CHOICES = 8
# What chat templates put around every message, beside the model's own overhead.
OVERHEAD_PER_MESSAGE_TOKENS = 16
# What they put around a tool call.
OVERHEAD_PER_TOOL_CALL_TOKENS = 48
LONGEST_TOKEN_CHARS = 8
# Templates print tools and schemas indented, which takes more bytes than the client's JSON.
INDENTED_FACTOR = 4
# Fields that templates print; what a catalog adds may be printed too.
PRINTED = frozenset({"tools", "response_format", "tool_choice"})
# Of values that are passed on as they are, such as schemas. What is deeper breaks templates and parsers.
MAX_DEPTH = 32
MAX_BRACKETS = 200_000

_FORBIDDEN_REASONS = {
    "best_of": "best_of is not offered: every choice is a charge of its own.",
    "functions": "functions is the old form of tools; use tools.",
    "function_call": "function_call is the old form of tool_choice; use tool_choice.",
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A validated chat request, before a backend is chosen. Bounds in tokens; the cap per choice."""

    model: str
    messages: list[Any]
    fields: Mapping[str, Any]
    stream: bool
    include_usage: bool
    output_cap_tokens: int
    prompt_bound_tokens: int
    choices: int
    payload_sha256: str
    # For engines that report no usage; never above the bound. Counted once: checkpoints ask again and again.
    estimated_prompt_tokens: int

    def to_upstream(self, *, attempt_id: str, upstream_model: str) -> ChatCall:
        return ChatCall(
            attempt_id=attempt_id,
            upstream_model=upstream_model,
            messages=self.messages,
            fields=self.fields,
            output_cap_tokens=self.output_cap_tokens,
            stream=self.stream,
        )


def estimate_prompt(messages: list[Any], *, context_tokens: int) -> int:
    """About how many tokens the messages are, without the template. Of a text that is longer than the
    context can be, only so much is looked at: counting megabytes would hold up every other call."""
    text = _texts(messages)[: context_tokens * LONGEST_TOKEN_CHARS]
    return estimate_tokens(text) + OVERHEAD_PER_MESSAGE_TOKENS * len(messages) // 4


def decode_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises CallError 400."""
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        # Text has few of them; millions of empty lists would hold up every other call for a second.
        raise bad_request("The body has too many lists and objects.", code="invalid_json")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise bad_request(f"The body is not valid JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad_request("The body must be a JSON object.", code="invalid_json")
    return value


def read_model(body: Mapping[str, Any]) -> str:
    """The slug that the body names. Raises CallError 400."""
    if "model" not in body:
        raise bad_request("The field 'model' is missing.", param="model", code="missing_field")
    return str(_converted("model", body["model"], GATEWAY_FIELDS["model"]))


def read_chat_request(
    body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
) -> ChatRequest:
    """Validate a decoded body for a model on the engines that serve it: whichever of them gets the call
    has to understand every field. Raises CallError 400, naming the field."""
    known: dict[str, Any] = {}
    passed: dict[str, Any] = {}
    for name, value in body.items():
        if name in GATEWAY_FIELDS:
            known[name] = _converted(name, value, GATEWAY_FIELDS[name])
            continue
        wanted = COMMON_FIELDS.get(name) or _engine_field(name, engines)
        if wanted is not None:
            converted = _converted(name, value, wanted)
            if converted is not None:
                _check_passable(name, value)
                passed[name] = converted
        elif name in entry.extra_fields and name not in RESERVED_FIELDS:
            _check_passable(name, value)
            passed[name] = value
        else:
            reason = _FORBIDDEN_REASONS.get(name, f"The field '{name[:64]}' is not supported by this model.")
            raise bad_request(reason, param=name[:64], code="unsupported_field")
    if "messages" not in known:
        raise bad_request("The field 'messages' is missing.", param="messages", code="missing_field")
    choices = known.get("n") or 1
    if choices > MAX_CHOICES:
        raise bad_request(f"n is {choices}; a call has at most {MAX_CHOICES} choices.", param="n")
    stream = bool(known.get("stream"))
    options = known.get("stream_options")
    if options is not None and not stream:
        raise bad_request("stream_options needs stream: true.", param="stream_options")
    messages = known["messages"]
    bound = _prompt_bound(messages, passed, entry)
    estimate = estimate_prompt(messages, context_tokens=entry.context_tokens)
    return ChatRequest(
        model=entry.slug,
        messages=messages,
        fields=passed,
        stream=stream,
        include_usage=bool(options and options.include_usage),
        output_cap_tokens=_output_cap(known, entry, estimate),
        prompt_bound_tokens=bound,
        choices=choices,
        payload_sha256=hashlib.sha256(raw).hexdigest(),
        estimated_prompt_tokens=max(1, min(estimate, bound)),
    )


def _converted(name: str, value: Any, wanted: Any) -> Any:
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        # The library names the place as `$.role`; clients know it as `messages[0].role`.
        message = str(error).replace("`$", f"`{name}")
        place = f"Field '{name}': {message}"
        raise bad_request(place[:500], param=name) from None
    except RecursionError:
        raise bad_request(f"The field '{name}' is nested too deeply.", param=name) from None


def _check_passable(name: str, value: Any) -> None:
    """Whether a decoded value can be written again as JSON for any backend. Raises CallError 400."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if any(type(number) is int and not -(2**63) <= number < 2**63 for number in level):
            raise bad_request(f"The field '{name}' holds a number beyond 64 bits.", param=name)
        if not level:
            return
    raise bad_request(f"The field '{name}' is nested too deeply.", param=name)


def _engine_field(name: str, engines: Collection[EngineAdapter]) -> Any:
    wanted = [engine.extra_fields.get(name) for engine in engines]
    return wanted[0] if wanted and None not in wanted else None


def _output_cap(known: Mapping[str, Any], entry: ModelEntry, estimate: int) -> int:
    asked = max(known.get("max_tokens") or 0, known.get("max_completion_tokens") or 0)
    if asked > entry.max_output_tokens:
        name = "max_completion_tokens" if known.get("max_completion_tokens") == asked else "max_tokens"
        raise bad_request(
            f"{name} is {asked}; this model's largest output is {entry.max_output_tokens} tokens.", param=name
        )
    if asked:
        return asked
    # A client that names no cap must not be refused by an engine that wants prompt and cap to fit together.
    room = entry.context_tokens - estimate - entry.template_overhead_tokens
    return min(entry.default_output_cap_tokens, entry.max_output_tokens, max(1, room))


def _prompt_bound(messages: list[Any], passed: Mapping[str, Any], entry: ModelEntry) -> int:
    """No tokenizer of ours makes more tokens than bytes, so bytes and the template's allowance bound
    the prompt; the context bounds it in any case."""
    images = _count_images(messages)
    if images and entry.image_allowance_tokens is None:
        raise bad_request(f"The model '{entry.slug}' takes no images.", param="messages")
    text = _texts(messages)
    # Some tokenizers compose first, which makes a few signs up to three times as long.
    text_bytes = max(len(text.encode()), len(unicodedata.normalize("NFC", text).encode()))
    indented = {name: value for name, value in passed.items() if name in PRINTED or name not in COMMON_FIELDS}
    schema_bytes = len(msgspec.json.encode(indented)) * INDENTED_FACTOR if indented else 0
    tool_calls = sum(len(getattr(message, "tool_calls", None) or ()) for message in messages)
    bound = (
        text_bytes
        + schema_bytes
        + OVERHEAD_PER_MESSAGE_TOKENS * len(messages)
        + OVERHEAD_PER_TOOL_CALL_TOKENS * tool_calls
        + entry.template_overhead_tokens
        + images * (entry.image_allowance_tokens or 0)
    )
    return min(bound, entry.context_tokens)


def _count_images(messages: list[Any]) -> int:
    count = 0
    for message in messages:
        if not isinstance(message, UserMessage) or isinstance(message.content, str):
            continue
        for part in message.content:
            if isinstance(part, ImagePart):
                # A backend must not be sent to fetch addresses that a client names.
                if not part.image_url.url.startswith("data:image/"):
                    raise bad_request("Images must be sent as data: URLs.", param="messages")
                count += 1
    return count


def _texts(messages: list[Any]) -> str:
    """All text that a template may print of the messages."""
    pieces: list[str] = []
    for message in messages:
        content = message.content
        if isinstance(content, str):
            pieces.append(content)
        elif content is not None:
            pieces.extend(part.text for part in content if not isinstance(part, ImagePart))
        for field in ("name", "tool_call_id"):
            value = getattr(message, field, None)
            if isinstance(value, str):
                pieces.append(value)
        tool_calls = getattr(message, "tool_calls", None)
        if isinstance(tool_calls, list):
            for call in tool_calls:
                pieces += [call.function.name, call.function.arguments * 2, call.id]
    return "\n".join(pieces)
