"""Reads the body of a request: what a client may send, and how large it can get."""

import unicodedata
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, defstruct

from models_catalog.engines import EngineAdapter
from models_catalog.engines.fields import MODEL_NAME, MODEL_NAME_CHARS, RESERVED_FIELDS
from portal.inference.errors import CallError, bad_request
from portal.inference.snapshot import ModelEntry
from quotas.metering.facts import estimate_tokens

# What templates put around every message, beside the model's own overhead; around a bare prompt, what
# tokenizers put before and behind it.
OVERHEAD_PER_MESSAGE_TOKENS = 16
# What they put around a tool call.
OVERHEAD_PER_TOOL_CALL_TOKENS = 48
LONGEST_TOKEN_CHARS = 8
# Templates print tools and schemas indented, which takes more bytes than the client's JSON.
INDENTED_FACTOR = 4
# Of values that are passed on as they are, such as schemas. What is deeper breaks templates and parsers.
MAX_DEPTH = 32
MAX_BRACKETS = 200_000
# Of a prompt's beginning, by which conversations are told apart.
_PREFIX_CHARS = 1024
_HOLDING_NOTHING = frozenset({bool, float, str, type(None)})


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
    """The slug or alias that the body names. Raises CallError 400."""
    if "model" not in body:
        raise missing("model")
    name = body["model"]
    if type(name) is str and 1 <= len(name) <= MODEL_NAME_CHARS:
        return name
    return str(converted("model", name, MODEL_NAME))


def missing(name: str) -> CallError:
    return bad_request(f"The field '{name}' is missing.", param=name, code="missing_field")


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What one endpoint takes. `ours` the gateway decides about itself, `common` is passed on as validated;
    `takes_engine_fields` says whether fields of engines and of the catalog are offered here.

    reasons: why a field that clients may know from elsewhere is not offered.
    """

    ours: Mapping[str, Any]
    common: Mapping[str, Any]
    takes_engine_fields: bool
    reasons: Mapping[str, str] = field(default_factory=dict)
    # All of its fields in one type: converting to it costs a fraction of converting them one by one.
    whole: type[Any] = field(init=False)

    def __post_init__(self) -> None:
        types = {**self.common, **self.ours}
        fields = [(name, wanted | UnsetType, UNSET) for name, wanted in types.items()]
        object.__setattr__(self, "whole", defstruct("Body", fields))


def sort_fields(
    body: Mapping[str, Any], rules: FieldRules, *, entry: ModelEntry, engines: Collection[EngineAdapter]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of ours and those that are passed on, converted; what is null is left out of the latter.
    Raises CallError 400, naming the field."""
    known: dict[str, Any] = {}
    passed: dict[str, Any] = {}
    whole = _converted_whole(body, rules)
    for name, value in body.items():
        if name in rules.ours:
            if name == "service_tier" and value in ("batch", "flex", "priority", "scale"):
                raise bad_request(
                    f"The service tier '{value}' is not offered. Leave service_tier out.",
                    param=name,
                    code="service_tier_not_offered",
                )
            known[name] = (
                getattr(whole, name)
                if whole is not None
                else converted(name, value, rules.ours[name], reason=rules.reasons.get(name))
            )
            continue
        wanted = rules.common.get(name)
        if wanted is None and rules.takes_engine_fields:
            wanted = _engine_field(name, engines)
        if wanted is not None:
            is_common = whole is not None and name in rules.common
            value_read = getattr(whole, name) if is_common else converted(name, value, wanted)
            if value_read is not None:
                check_passable(name, value, is_schema=True)
                passed[name] = value_read
        elif rules.takes_engine_fields and name in entry.extra_fields and name not in RESERVED_FIELDS:
            check_passable(name, value)
            _check_members(name, value)
            passed[name] = value
        else:
            reason = rules.reasons.get(name, f"The field '{name[:64]}' is not supported by this model.")
            raise bad_request(reason, param=name[:64], code="unsupported_field")
    return known, passed


def _converted_whole(body: Mapping[str, Any], rules: FieldRules) -> Any:
    """All fields that the rules name, converted at once; None when something is wrong with one of them, and
    they have to be looked at one by one to say what."""
    try:
        return msgspec.convert(body, rules.whole)
    except (msgspec.ValidationError, RecursionError):
        return None


def converted(name: str, value: Any, wanted: Any, *, reason: str | None = None) -> Any:
    """The value as its type wants it. Raises CallError 400 that says where it is wrong, or why it is not
    offered."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        if reason is not None:
            raise bad_request(reason, param=name, code="unsupported_value") from None
        # The library names the place as `$.role`; clients know it as `messages[0].role`.
        message = str(error).replace("`$", f"`{name}")
        place = f"Field '{name}': {message}"
        raise bad_request(place[:500], param=name) from None
    except RecursionError:
        raise bad_request(f"The field '{name}' is nested too deeply.", param=name) from None


def check_passable(name: str, value: Any, *, is_schema: bool = False) -> None:
    """Whether a decoded value can be written again as JSON for any backend. Raises CallError 400.

    is_schema: whether JSON schemas may be in it.
    """
    if type(value) in _HOLDING_NOTHING:
        return
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH):
        further: list[Any] = []
        for outer in level:
            inner = outer.values() if isinstance(outer, dict) else outer
            # A list may have millions of entries, and every other call waits.
            kinds = set(map(type, inner))
            if int in kinds:
                numbers = inner if len(kinds) == 1 else [each for each in inner if type(each) is int]
                if min(numbers) < -(2**63) or max(numbers) >= 2**63:
                    raise bad_request(f"The field '{name}' holds a number beyond 64 bits.", param=name)
            if kinds & {dict, list}:
                further += [each for each in inner if isinstance(each, dict | list)]
            if is_schema and isinstance(outer, dict):
                _check_reference(name, outer)
        if not further:
            return
        level = further
    raise bad_request(f"The field '{name}' is nested too deeply.", param=name)


def _check_reference(name: str, value: Mapping[str, Any]) -> None:
    """No backend must be sent to fetch a part of a schema from an address that a client names."""
    target = value.get("$ref", "#")
    if isinstance(target, str) and not target.startswith("#"):
        raise bad_request(
            f"The field '{name}' has a $ref to somewhere else; a schema may only refer to itself, as "
            "'#/$defs/…'.",
            param=name,
        )


def _check_members(name: str, value: Any) -> None:
    """What is nobody's to send is not to be sent inside of something else, as in chat_template_kwargs."""
    for member in value if isinstance(value, dict) else ():
        if member in RESERVED_FIELDS:
            raise bad_request(
                f"The member '{member}' of '{name}' is not offered.", param=name, code="unsupported_field"
            )


def _engine_field(name: str, engines: Collection[EngineAdapter]) -> Any:
    wanted = [engine.extra_fields.get(name) for engine in engines]
    return wanted[0] if wanted and None not in wanted else None


def read_stream(known: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the answer is a stream, and whether its usage was asked for. Raises CallError 400."""
    stream = bool(known.get("stream"))
    options = known.get("stream_options")
    if options is not None and not stream:
        raise bad_request("stream_options needs stream: true.", param="stream_options")
    return stream, bool(options and options.include_usage)


def output_cap(name: str, asked: int | None, *, entry: ModelEntry, estimated_prompt_tokens: int) -> int:
    """The cap of one choice: what the field `name` asks for, or the model's default. Raises CallError 400."""
    if asked and asked > entry.max_output_tokens:
        raise bad_request(
            f"{name} is {asked}; this model's largest output is {entry.max_output_tokens} tokens.", param=name
        )
    if asked:
        return asked
    # A client that names no cap must not be refused by an engine that wants prompt and cap to fit together.
    room = entry.context_tokens - estimated_prompt_tokens - entry.template_overhead_tokens
    return min(entry.default_output_cap_tokens, entry.max_output_tokens, max(1, room))


def text_bound(text: str) -> int:
    """No tokenizer of ours makes more tokens than bytes."""
    size_bytes = len(text.encode())
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return size_bytes
    # Some tokenizers compose first, which makes a few signs up to three times as long. Composing here to see
    # takes time quadratic in the length of a run of marks, and clients can send very long ones.
    return 3 * size_bytes - 2 * len(text.encode("ascii", "ignore"))


def printed_bound(value: Any) -> int:
    """How many bytes a value can take when a template prints it as indented JSON."""
    return len(msgspec.json.encode(value)) * INDENTED_FACTOR if value else 0


def printed_estimate(value: Any) -> int:
    """About how many tokens a value has that a template prints as JSON; tokenizers take its signs in twos."""
    return estimate_tokens(msgspec.json.encode(value).decode()) // 2 if value else 0


def prompt_bound(
    text: str,
    *,
    printed: Mapping[str, Any],
    turns: int,
    tool_calls: int,
    images: int,
    entry: ModelEntry,
    further_tokens: int = 0,
) -> int:
    """How many tokens a conversation has at most: its bytes, what templates print and put around it, and its
    images' allowance; the context in any case."""
    bound = (
        text_bound(text)
        + further_tokens
        + printed_bound(printed)
        + OVERHEAD_PER_MESSAGE_TOKENS * turns
        + OVERHEAD_PER_TOOL_CALL_TOKENS * tool_calls
        + entry.template_overhead_tokens
        + images * (entry.image_allowance_tokens or 0)
    )
    return min(bound, entry.context_tokens)


def needs_of(**wanted: object) -> frozenset[str]:
    """The capabilities that a deployment must have: the names of those that are wanted."""
    return frozenset([name for name, is_wanted in wanted.items() if is_wanted])


def estimate(text: str, *, context_tokens: int) -> int:
    """About how many tokens a text has. Of one that is longer than the context can be, only so much is
    looked at: counting megabytes would hold up every other call."""
    return estimate_tokens(text[: context_tokens * LONGEST_TOKEN_CHARS])


def check_images(images: int, *, entry: ModelEntry, param: str) -> None:
    """Raises CallError 400 when there are images and the model takes none."""
    if images and entry.image_allowance_tokens is None:
        raise bad_request(f"The model '{entry.slug}' takes no images.", param=param)


def prefix_key(*beginnings: str) -> int:
    """Alike for conversations that begin alike, in all processes."""
    key = 0
    for text in beginnings:
        key = zlib.crc32(text[:_PREFIX_CHARS].encode(errors="replace"), key)
    return key
