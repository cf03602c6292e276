"""What backends answer: whole answers, and refusals translated for the client."""

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines import PATHS, Endpoint
from portal.inference import errors
from portal.inference.errors import CallError

MAX_WIRE_ID = 200

# What decoding a backend's bytes can raise: whatever it is, it is not an answer.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Message(Struct):
    content: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class _Choice(Struct):
    message: _Message | None = None
    # Of completions.
    text: Any = None


class _Answer(Struct):
    id: str | None = None
    error: Any = None
    choices: list[_Choice] | None = None


class _ErrorBody(Struct):
    error: Any = None
    # vLLM and SGLang put the message at the top level in some releases.
    message: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_error = msgspec.json.Decoder(_ErrorBody).decode


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """A whole answer: its bytes as received, the backend's id, and its text for estimates."""

    body: bytes = field(repr=False)
    wire_id: str
    text: str = field(repr=False)


def read_plain_answer(body: bytes) -> PlainAnswer:
    """Errors: those of UNREADABLE when it is not a JSON answer of this kind."""
    answer = _decode(body)
    if answer.choices is None or answer.error is not None:
        raise msgspec.DecodeError("an answer has choices and no error")
    pieces: list[str] = []
    for choice in answer.choices:
        if isinstance(choice.text, str):
            pieces.append(choice.text)
        if choice.message is None:
            continue
        for part in (choice.message.content, choice.message.reasoning_content):
            if isinstance(part, str):
                pieces.append(part)
        if choice.message.tool_calls:
            pieces.append(msgspec.json.encode(choice.message.tool_calls).decode())
    return PlainAnswer(body, wire_id_of(answer.id), "\n".join(pieces))


def wire_id_of(value: str | None) -> str:
    """A backend's id as it can be stored."""
    return (value or "").replace("\0", "")[:MAX_WIRE_ID]


# What engines answer at an address that they do not have, or were not started for.
_NOT_SPOKEN = frozenset({404, 405, 501})
# Engines, and proxies before them, put paths, addresses and internals into their messages; those are not the
# client's business.
_INTERNAL = re.compile(
    r"/\w+/|[A-Za-z]:\\|\.py\b|Traceback|0x[0-9a-f]{6}|://"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]{1,4}:(?:[0-9a-f]{0,4}:)+|[A-Za-z][\w.-]{0,63}:\d{4,5}\b"
)


def refusal_of(status: int, body: bytes, endpoint: Endpoint = Endpoint.CHAT) -> tuple[CallError, bool]:
    """The error for a backend's refusal, and whether another backend may be tried.

    400, 413 and 422 are about the request, so they go to the client; 401, 403 and 404 mean that our
    credential or deployment is wrong, which is not the client's doing. Where an engine only lacks an
    endpoint, its backend is well, and must not be taken for one that fails.
    """
    lacks_model = status == 404 and "does not exist" in _message_of(body)[0]
    if endpoint != Endpoint.CHAT and status in _NOT_SPOKEN and not lacks_model:
        return errors.endpoint_not_served(PATHS[endpoint]), False
    if status in (400, 413, 422):
        message, kind, numbers = _message_of(body)
        if kind == "exceed_context_size_error" or "context" in message.lower():
            return (
                CallError(
                    400,
                    "context_length_exceeded",
                    message or "The prompt is longer than this model's context.",
                    details=numbers,
                ),
                False,
            )
        return CallError(
            400, "backend_refused", message or "The model's backend refused this request."
        ), False
    if status in (429, 503):
        return errors.backend_unavailable(), True
    return errors.backend_failed(), True


def _message_of(body: bytes) -> tuple[str, str, dict[str, Any]]:
    try:
        decoded = _decode_error(body)
    except UNREADABLE:
        return "", "", {}
    error = decoded.error if isinstance(decoded.error, dict) else {"message": decoded.message}
    message, kind = error.get("message"), error.get("type")
    numbers = {name: error[name] for name in ("n_prompt_tokens", "n_ctx") if isinstance(error.get(name), int)}
    text = message if isinstance(message, str) and not _INTERNAL.search(message) else ""
    return text[:300], kind if isinstance(kind, str) else "", numbers
