"""What every flavour has to answer, with the behaviour that most of them share."""

from __future__ import annotations

import random
import string
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from devstack.engines.call import Call, EngineRequest
from devstack.engines.counters import EngineCounters
from devstack.engines.options import EngineOptions, Flavour
from devstack.engines.pieces import Piece, Said
from devstack.engines.prompts import CAPS, Endpoint, read_prompt, read_wish

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

    `version`: the one that its behaviour was recorded from.
    `cap_fields`: fields that beat those of `prompts.CAPS`.
    `reasoning_field`: where a chat message has its reasoning.
    `headers_at_once`: a stream's head is sent before the first token exists.
    `roles_first`: with several choices, the role chunks of all come before any token.
    `usage_per_choice`: usage counts one choice only, and a stream of several has a usage chunk for each.
    `closes_streams`: the connection is closed after each stream, whatever its head announced.
    `open_paths`: those that need no API key.
    """

    flavour: ClassVar[Flavour]
    version: ClassVar[str] = "1.0.0"
    cap_fields: ClassVar[tuple[str, ...]] = ()
    reasoning_field: ClassVar[str] = "reasoning_content"
    server_header: ClassVar[bool] = True
    headers_at_once: ClassVar[bool] = False
    roles_first: ClassVar[bool] = False
    usage_per_choice: ClassVar[bool] = False
    closes_streams: ClassVar[bool] = False
    open_paths: ClassVar[tuple[str, ...]] = ("/health",)

    def __init__(self, options: EngineOptions) -> None:
        self.model = options.model
        self.engine_version = options.version or self.version
        self.has_embeddings = options.embeddings
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

    def check_served(self, endpoint: Endpoint) -> None:
        """Raises EngineError for an endpoint that the engine does not serve as it was started."""
        return

    @abstractmethod
    def read_request(self, endpoint: Endpoint, body: Any, headers: dict[bytes, bytes]) -> EngineRequest:
        """Validates a decoded body as the engine does. Raises EngineError."""

    def make_request(
        self, endpoint: Endpoint, body: Json, *, cap: int | None, **fields: Any
    ) -> EngineRequest:
        """A request with what all engines read in the same way. Raises LaxError."""
        model = body.get("model")
        return EngineRequest(
            endpoint=endpoint,
            prompt=read_prompt(endpoint, body),
            wish=read_wish(endpoint, body),
            model=model if isinstance(model, str) else None,
            cap_tokens=cap,
            **fields,
        )

    def caps_of(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The fields that may hold the cap, the strongest first."""
        return (*self.cap_fields, *CAPS[endpoint])

    @abstractmethod
    def target_tokens(self, request: EngineRequest, prompt_tokens: int) -> int:
        """The most tokens that one sequence may get. Raises EngineError when the prompt does not fit."""

    @abstractmethod
    def make_wire_id(self, request: EngineRequest, headers: dict[bytes, bytes]) -> str:
        """The `id` of the response."""

    def make_tool_id(self) -> str:
        """The id of a called tool."""
        return f"call_{self.random_hex(24)}"

    def begin(self, call: Call) -> None:
        """A call is about to be admitted. Raises EngineError where the engine refuses it only now."""
        return

    def end(self, call: Call) -> None:
        """An admitted call is over."""
        return

    def response_model(self, request: EngineRequest) -> str:
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
    def token_chunk(self, call: Call, index: int, step: int, piece: Piece) -> Json:
        """The chunk of one token; `step` counts from 1."""

    def delta(self, call: Call, piece: Piece) -> Json:
        """What one token adds to a message."""
        match piece.kind:
            case "reasoning":
                return {self.reasoning_field: piece.text}
            case "content":
                return {"content": piece.text}
            case "tool_name":
                function = {"name": piece.text, "arguments": ""}
                head = {"index": piece.tool, "id": call.tool_ids[piece.tool], "type": "function"}
                return {"tool_calls": [head | {"function": function}]}
            case _:
                return {"tool_calls": [{"index": piece.tool, "function": {"arguments": piece.text}}]}

    def message_of(self, call: Call) -> tuple[Said, Json]:
        """What a finished plain call says, and its message: content is null beside the calls of tools."""
        said = call.said()
        message: Json = {"role": "assistant", "content": said.content if not said.tools else None}
        if said.tools:
            message["tool_calls"] = [
                {"id": tool_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for tool_id, (name, arguments) in zip(call.tool_ids, said.tools, strict=False)
            ]
        return said, message

    @staticmethod
    def logprobs(call: Call, first_step: int, last_step: int) -> Json | None:
        """The logprobs of these tokens of a message, None when they were not asked for."""
        top = call.request.wish.top_logprobs
        if top is None:
            return None
        return {
            "content": [_logprob(call.piece(step).text, top) for step in range(first_step, last_step + 1)]
        }

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

    def usage_field(self, call: Call, make: Callable[[int], Json] | None = None) -> Json:
        """The `usage` member of a finished call, empty or null when a fault says so. Books what it claims.

        make: what makes it of the number of completion tokens; that of chats by default.
        """
        if self.hides_usage(call):
            return {}
        if call.directive.has_fault("usage_null"):
            return {"usage": None}
        completion = call.reported_tokens(1 if self.usage_per_choice else call.request.sequences)
        call.record.reported_completion_tokens = completion
        return {"usage": self.final_usage(call, completion) if make is None else make(completion)}

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

    def info(self, path: str) -> Json | list[Json] | None:
        """The body of another page that tells about the engine; None where there is none."""
        return None

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


def _logprob(text: str, top: int) -> Json:
    entry: Json = {"token": text, "logprob": -0.5, "bytes": list(text.encode())}
    others = [{"token": f"alt{rank}", "logprob": -1.0 - rank, "bytes": None} for rank in range(1, top)]
    return entry | {"top_logprobs": [dict(entry), *others][:top]}
