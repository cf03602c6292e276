"""What every flavour has to answer, with the behaviour that most of them share."""

from __future__ import annotations

import random
import string
import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from devstack.engines.call import Call, ChatRequest
from devstack.engines.counters import EngineCounters
from devstack.engines.options import EngineOptions
from devstack.engines.tokens import completion_text

Header = tuple[bytes, bytes]
Json = dict[str, Any]

UNBOUNDED = sys.maxsize
ALNUM = string.ascii_letters + string.digits


class EngineError(Exception):
    """The engine answers a request with this status and this JSON body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


class Dialect(ABC):
    """Wire format and habits of one engine. All sizes are in tokens.

    `headers_at_once`: a stream's head is sent before the first token exists.
    `roles_first`: with several choices, the role chunks of all come before any token.
    `usage_per_choice`: usage counts one choice only, and a stream of several has a usage chunk for each.
    `closes_streams`: the connection is closed after each stream, whatever its head announced.
    `open_paths`: those that need no API key.
    """

    server_header: ClassVar[bool] = True
    headers_at_once: ClassVar[bool] = False
    roles_first: ClassVar[bool] = False
    usage_per_choice: ClassVar[bool] = False
    closes_streams: ClassVar[bool] = False
    open_paths: ClassVar[tuple[str, ...]] = ("/health",)

    def __init__(self, options: EngineOptions) -> None:
        self.model = options.model
        self.context_tokens = options.context_tokens
        # Ids repeat only when a seed was asked for; without one they differ between processes.
        self.ids = random.Random(options.seed)
        self.counters = self.make_counters()

    # What it is asked.

    @abstractmethod
    def make_counters(self) -> EngineCounters:
        """The engine's counters, all zero."""

    @abstractmethod
    def invalid_json(self, body: bytes, reason: str) -> EngineError:
        """The answer to a body that is no JSON."""

    @abstractmethod
    def read_request(self, body: Any, headers: dict[bytes, bytes]) -> ChatRequest:
        """Validates a decoded body as the engine does. Raises EngineError."""

    @abstractmethod
    def target_tokens(self, request: ChatRequest, prompt_tokens: int) -> int:
        """The most tokens that one choice may get. Raises EngineError when the prompt does not fit."""

    @abstractmethod
    def make_wire_id(self, request: ChatRequest, headers: dict[bytes, bytes]) -> str:
        """The `id` of the response."""

    def begin(self, call: Call) -> None:
        """A call is about to be admitted. Raises EngineError where the engine refuses it only now."""
        return

    def end(self, call: Call) -> None:
        """An admitted call is over."""
        return

    def response_model(self, request: ChatRequest) -> str:
        """The `model` of the response."""
        return self.model

    def overrun_steps(self, call: Call) -> int:
        """How many more steps are decoded once the client is gone."""
        return 0

    # What it answers.

    def head(self, *, headers: dict[bytes, bytes], requests: int, closing: bool) -> list[Header]:
        """Headers of every response. `requests` counts those on this connection, this one included."""
        return []

    def stream_head(self) -> list[Header]:
        """Headers of an event stream."""
        return [(b"content-type", b"text/event-stream; charset=utf-8")]

    def json_head(self) -> list[Header]:
        """Headers of a JSON body."""
        return [(b"content-type", b"application/json")]

    def chunk(self, call: Call, choices: list[Json]) -> Json:
        """A chunk with these choices."""
        return {
            "id": call.wire_id,
            "object": "chat.completion.chunk",
            "created": call.created_unix,
            "model": call.model,
            "choices": choices,
        }

    @abstractmethod
    def role_chunk(self, call: Call, index: int) -> Json:
        """The chunk that opens a choice."""

    @abstractmethod
    def token_chunk(self, call: Call, index: int, step: int, text: str) -> Json:
        """The chunk of one token; `step` counts from 1."""

    def finish_chunk(self, call: Call, index: int) -> Json | None:
        """The chunk that carries finish_reason, None where the last token carries it."""
        return None

    @abstractmethod
    def final_usage(self, call: Call, completion: int) -> Json:
        """The usage object of a finished call that claims `completion` generated tokens."""

    def usage_chunk(self, call: Call) -> Json | None:
        """The chunk with the final usage, None when it was not asked for or a fault forbids it."""
        if not call.request.include_usage or self.hides_usage(call):
            return None
        return self.chunk(call, []) | self.usage_field(call)

    def usage_field(self, call: Call) -> Json:
        """The `usage` member of a finished call, empty or null when a fault says so. Books what it claims."""
        if self.hides_usage(call):
            return {}
        if call.directive.has_fault("usage_null"):
            return {"usage": None}
        completion = call.reported_tokens(1 if self.usage_per_choice else call.request.n)
        call.record.reported_completion_tokens = completion
        return {"usage": self.final_usage(call, completion)}

    @abstractmethod
    def plain_body(self, call: Call) -> Json:
        """The whole response of a plain call."""

    @abstractmethod
    def error_body(self, status: int, message: str, kind: str = "", param: str | None = None) -> Json:
        """An error in the engine's own shape; `kind` defaults to what it calls such a status."""

    def error_event(self) -> Json:
        """What an event stream says when generation fails in its middle."""
        return self.error_body(500, "The engine encountered an issue.")

    @abstractmethod
    def models(self) -> Json:
        """The body of GET /v1/models."""

    @abstractmethod
    def unauthorized(self) -> EngineError:
        """The answer to a missing or wrong API key."""

    def not_found(self) -> EngineError:
        """The answer to an unknown path."""
        return EngineError(404, {"detail": "Not Found"})

    def health(self) -> bytes:
        """The body of GET /health."""
        return b""

    def reject(self, status: int, message: str, kind: str = "", param: str | None = None) -> EngineError:
        """An EngineError in the engine's own shape."""
        return EngineError(status, self.error_body(status, message, kind, param))

    # Shared parts.

    def random_text(self, length: int) -> str:
        """Random letters and digits for an id."""
        return "".join(self.ids.choices(ALNUM, k=length))

    def random_hex(self, digits: int) -> str:
        """Random hexadecimal digits for an id."""
        return f"{self.ids.getrandbits(4 * digits):0{digits}x}"

    @staticmethod
    def hides_usage(call: Call) -> bool:
        """Whether a fault forbids every usage object."""
        return call.directive.has_fault("no_usage")

    @staticmethod
    def is_reasoning(call: Call, step: int) -> bool:
        """Whether the token number `step` belongs to the reasoning."""
        return step <= call.reasoning_tokens

    @staticmethod
    def texts(call: Call) -> tuple[str, str]:
        """Reasoning and answer of a finished plain call, padded when a fault wants a big line."""
        reasoning, answer = completion_text(call.steps, call.reasoning_tokens)
        fault = call.directive.fault
        if fault is not None and fault.name == "big_line" and call.steps:
            first, _, rest = (reasoning or answer).partition(" ")
            padded = first + "x" * fault.number + (f" {rest}" if rest else "")
            return (padded, answer) if reasoning else ("", padded)
        return reasoning, answer
