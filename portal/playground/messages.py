"""What travels over a socket, as JSON. Struct tags are the `type` of a message."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

MAX_MESSAGE_BYTES = 2**20
MAX_TURNS = 400

Slug = Annotated[str, Meta(min_length=1, max_length=200)]
RunNumber = Annotated[int, Meta(ge=0, le=2**31)]


class Turn(Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class Parameters(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Those of /v1; what is left out is the model's own default."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=200)]], Meta(max_length=4)] | None = (
        None
    )


class Run(Struct, tag="run", forbid_unknown_fields=True):
    """Begin a run. `id` is the browser's own number; every answer to it carries it."""

    id: RunNumber
    model: Slug
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_TURNS)]
    parameters: Parameters = msgspec.field(default_factory=Parameters)

    def body(self) -> dict[str, Any]:
        """The same call as a body of /v1/chat/completions."""
        turns = [{"role": turn.role, "content": turn.content} for turn in self.messages]
        given = msgspec.to_builtins(self.parameters)
        return {"model": self.model, "messages": turns, "stream": True, **given}


class Stop(Struct, tag="stop", forbid_unknown_fields=True):
    """End the run in progress; without one it means nothing."""


class AskEnded(Struct, tag="ended", forbid_unknown_fields=True):
    """What became of a run that the page lost sight of; without an id, of the member's newest of the last
    `since_s` seconds."""

    request_id: Annotated[str, Meta(max_length=40)] | None = None
    since_s: Annotated[int, Meta(ge=0, le=3600)] = 60


class Queued(Struct, tag="queued"):
    id: int
    request_id: str


class Started(Struct, tag="started"):
    id: int
    request_id: str
    ttft_ms: int


class Delta(Struct, tag="delta", omit_defaults=True):
    id: int
    text: str = ""
    reasoning: str = ""


class Meter(Struct, tag="meter"):
    """Running counts. exact: they are the backend's own, not counted from events."""

    id: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int | None
    currency: str
    exact: bool


class Done(Struct, tag="done"):
    """The end of a run with what it cost. settled: the numbers are the settlement's, not the meter's."""

    id: int
    request_id: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nanos: int | None
    cost: str
    currency: str
    provenance: str
    settled: bool
    ttft_ms: int | None
    duration_ms: int
    tokens_per_s: float | None
    receipt_url: str


class Ended(Struct, tag="ended"):
    """What became of an earlier run. found: False when there is no such run of this member."""

    found: bool
    request_id: str = ""
    text: str = ""
    receipt_url: str = ""


class Action(Struct, omit_defaults=True):
    """What to do about an error: go somewhere, or take a smaller cap."""

    label: str
    url: str = ""
    max_tokens: int | None = None


class Error(Struct, tag="error"):
    """id is None for what belongs to no run. retry_after_s: when trying again makes sense."""

    id: int | None
    code: str
    message: str
    detail: str = ""
    action: Action | None = None
    retry_after_s: int | None = None
    request_id: str = ""


Incoming = Run | Stop | AskEnded
Outgoing = Queued | Started | Delta | Meter | Done | Ended | Error

_decoder: msgspec.json.Decoder[Incoming] = msgspec.json.Decoder(Incoming)
_encode = msgspec.json.Encoder().encode


class Unreadable(ValueError):
    """The message is none of those that a page sends. The text says where, and repeats nothing of it."""


def read(text: str) -> Incoming:
    """Raises Unreadable."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(str(error)[:300]) from None


def write(message: Outgoing) -> str:
    return _encode(message).decode()
