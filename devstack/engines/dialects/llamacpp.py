"""llama.cpp's server: no client id, timings, one choice in `usage`, connections closed after streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from devstack.engines.call import Call, EngineRequest
from devstack.engines.counters import EngineCounters, LlamacppCounters
from devstack.engines.dialects.base import UNBOUNDED, Dialect, EngineError, Header, Json
from devstack.engines.lax import LaxError, stream_option
from devstack.engines.options import EngineOptions
from devstack.engines.pieces import Piece
from devstack.engines.prompts import Endpoint

MAX_CHOICES = 4
MAX_REQUESTS_A_CONNECTION = 100
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    500: "server_error",
    503: "unavailable_error",
}


class LlamacppDialect(Dialect):
    """A slot's tokens are counted once: `usage` and `timings` of several choices show one of them."""

    flavour = "llamacpp"
    version = "b0-sim"
    # Its own name beats OpenAI's, in whatever order they stand.
    cap_fields = ("n_predict",)
    server_header = False
    usage_per_choice = True
    closes_streams = True

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(options)
        self.slots = options.speeds.slots

    def make_counters(self) -> EngineCounters:
        return LlamacppCounters()

    def invalid_json(self, body: bytes, reason: str) -> EngineError:
        return self.reject(400, f"[json.exception.parse_error.101] parse error: {reason}")

    def check_served(self, endpoint: Endpoint) -> None:
        if endpoint == "embeddings" and not self.has_embeddings:
            message = "This server does not support embeddings. Start it with `--embeddings`"
            raise self.reject(501, message, "not_supported_error")

    def read_request(self, endpoint: Endpoint, body: Any, headers: dict[bytes, bytes]) -> EngineRequest:
        if not isinstance(body, dict):
            raise self.reject(400, "'messages' is required")
        if endpoint in ("chat", "messages"):
            self._check_messages(body)
        choices = self._number(body, "n")
        if choices is not None and not 1 <= choices <= MAX_CHOICES:
            message = f"Field 'n': Value must be between 1 <= value <= {MAX_CHOICES}, but got {choices}"
            raise self.reject(400, message)
        try:
            return self.make_request(
                endpoint,
                body,
                cap=self._cap(endpoint, body),
                stream=self._flag(body, "stream"),
                n=choices or 1,
                include_usage=stream_option(body, "include_usage"),
                timings_per_token=self._flag(body, "timings_per_token"),
            )
        except LaxError as wrong:
            raise self.reject(400, f"'{wrong.field}' is required") from wrong

    def _check_messages(self, body: Json) -> None:
        if "messages" not in body:
            raise self.reject(400, "'messages' is required")
        messages = body["messages"]
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise self.reject(400, "Expected 'messages' to be an array")

    def _cap(self, endpoint: Endpoint, body: Json) -> int | None:
        # Below zero means none.
        for field in self.caps_of(endpoint):
            value = self._number(body, field)
            if value is not None:
                return max(value, 1) if value >= 0 else None
        return None

    def _number(self, body: Json, field: str) -> int | None:
        value = body.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._type_error(field, "number", value)
        return int(value)

    def _flag(self, body: Json, field: str) -> bool:
        value = body.get(field)
        if value is not None and not isinstance(value, bool):
            raise self._type_error(field, "boolean", value)
        return bool(value)

    def _type_error(self, field: str, wanted: str, value: object) -> EngineError:
        names = {
            bool: "boolean",
            int: "number",
            float: "number",
            str: "string",
            list: "array",
            dict: "object",
        }
        given = names.get(type(value), "null")
        message = f"Field '{field}': [json.exception.type_error.302] type must be {wanted}, but is {given}"
        return self.reject(400, message)

    def target_tokens(self, request: EngineRequest, prompt_tokens: int) -> int:
        if prompt_tokens >= self.context_tokens:
            message = (
                f"request ({prompt_tokens} tokens) exceeds the available context size "
                f"({self.context_tokens} tokens), try increasing it"
            )
            body = self.error_body(400, message, "exceed_context_size_error")
            body["error"] |= {"n_prompt_tokens": prompt_tokens, "n_ctx": self.context_tokens}
            raise EngineError(400, body)
        room = self.context_tokens - prompt_tokens
        return room if request.cap_tokens is None else min(room, request.cap_tokens)

    def make_wire_id(self, request: EngineRequest, headers: dict[bytes, bytes]) -> str:
        prefix = "resp_" if request.endpoint == "responses" else "chatcmpl-"
        return prefix + self.random_text(32)

    def make_tool_id(self) -> str:
        return self.random_text(32)

    def overrun_steps(self, call: Call) -> int:
        if not call.request.stream:
            return UNBOUNDED
        # The slot notices between two tokens, so one more is decoded; a cut prefill ends in two.
        return 1 if call.steps else 2

    def head(self, *, headers: dict[bytes, bytes], requests: int, closing: bool) -> list[Header]:
        common: list[Header] = [
            (b"Server", b"llama.cpp"),
            (b"Access-Control-Allow-Origin", headers.get(b"origin", b"")),
        ]
        if closing or requests >= MAX_REQUESTS_A_CONNECTION:
            return [*common, (b"Connection", b"close")]
        return [*common, (b"Keep-Alive", b"timeout=5, max=%d" % MAX_REQUESTS_A_CONNECTION)]

    def stream_head(self) -> list[Header]:
        return [(b"X-Accel-Buffering", b"no"), (b"Content-Type", b"text/event-stream")]

    def json_head(self) -> list[Header]:
        return [(b"Content-Type", b"application/json; charset=utf-8")]

    def chunk(self, call: Call, choices: list[Json]) -> Json:
        return {
            "choices": choices,
            "created": call.created_unix,
            "id": call.wire_id,
            "model": call.model,
            "system_fingerprint": self.engine_version,
            "object": "chat.completion.chunk",
        }

    def role_chunk(self, call: Call, index: int) -> Json:
        delta = {"role": "assistant", "content": None}
        return self.chunk(call, [{"finish_reason": None, "index": index, "delta": delta}])

    def token_chunk(self, call: Call, index: int, step: int, piece: Piece) -> Json:
        choice: Json = {"finish_reason": None, "index": index, "delta": self.delta(call, piece)}
        if call.request.wish.top_logprobs is not None:
            choice["logprobs"] = self.logprobs(call, step, step)
        chunk = self.chunk(call, [choice])
        if call.request.timings_per_token and not self.hides_usage(call):
            chunk["timings"] = self.timings(call, step)
        return chunk

    def finish_chunk(self, call: Call, index: int) -> Json:
        chunk = self.chunk(call, [{"finish_reason": call.finish_reason, "index": index, "delta": {}}])
        if not call.request.include_usage and not self.hides_usage(call):
            chunk["timings"] = self.timings(call, call.reported_tokens(1))
        return chunk

    def usage_field(self, call: Call, make: Callable[[int], Json] | None = None) -> Json:
        field = super().usage_field(call, make)
        # Chats and completions have timings beside; where another form is asked for, that form decides.
        return (
            field | {"timings": self.timings(call, call.reported_tokens(1))} if field and not make else field
        )

    def plain_body(self, call: Call) -> Json:
        said, message = self.message_of(call)
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        ending: Json = {"message": message}
        if call.request.wish.top_logprobs is not None:
            ending["logprobs"] = self.logprobs(call, 1, call.steps)
        return {
            "choices": [
                {"finish_reason": call.finish_reason, "index": index, **ending}
                for index in range(call.request.n)
            ],
            "created": call.created_unix,
            "model": call.model,
            "system_fingerprint": self.engine_version,
            "object": "chat.completion",
            "id": call.wire_id,
            **self.usage_field(call),
        }

    def final_usage(self, call: Call, completion: int) -> Json:
        return {
            "completion_tokens": completion,
            "prompt_tokens": call.first_prompt_tokens,
            "total_tokens": call.first_prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": call.cached_tokens},
        }

    def timings(self, call: Call, predicted: int) -> Json:
        """Running counts; those of one sequence."""
        now_s = time.perf_counter()
        prefilled_s = now_s if call.prefilled_s is None else call.prefilled_s
        computed = max(0, call.first_prompt_tokens - call.cached_tokens)
        prompt_ms = max((prefilled_s - call.started_s) * 1000, 0.001)
        predicted_ms = max((now_s - prefilled_s) * 1000, 0.001)
        intervals = max(predicted - 1, 0)
        return {
            "cache_n": call.cached_tokens,
            "prompt_n": computed,
            "prompt_ms": round(prompt_ms, 3),
            "prompt_per_token_ms": prompt_ms / computed if computed else 0.0,
            "prompt_per_second": 1000 * computed / prompt_ms,
            "predicted_n": predicted,
            "predicted_ms": round(predicted_ms, 3),
            "predicted_per_token_ms": predicted_ms / intervals if intervals else 0.0,
            "predicted_per_second": 1000 * intervals / predicted_ms,
        }

    def error_body(self, status: int, message: str, kind: str = "", param: str | None = None) -> Json:
        return {
            "error": {"code": status, "message": message, "type": kind or _KINDS.get(status, "server_error")}
        }

    def models(self) -> Json:
        details = {"parent_model": "", "format": "gguf", "family": "", "families": [""]}
        return {
            "models": [
                {
                    "name": self.model,
                    "model": self.model,
                    "type": "model",
                    "capabilities": ["completion"],
                    "details": details,
                }
            ],
            "object": "list",
            "data": [
                {
                    "id": self.model,
                    "aliases": [self.model],
                    "tags": [],
                    "object": "model",
                    "created": int(time.time()),
                    "owned_by": "llamacpp",
                    "meta": {"n_ctx": self.context_tokens, "n_ctx_train": self.context_tokens},
                }
            ],
        }

    def unauthorized(self) -> EngineError:
        return self.reject(401, "Invalid API Key")

    def not_found(self) -> EngineError:
        return self.reject(404, "File Not Found")

    def health(self) -> bytes:
        return b'{"status":"ok"}'

    def info(self, path: str) -> Json | list[Json] | None:
        if path != "/props":
            return None
        return {
            "default_generation_settings": {"n_ctx": self.context_tokens},
            "total_slots": self.slots,
            "model_alias": self.model,
            "model_path": self.model,
            "modalities": {"vision": True, "video": False, "audio": False},
            "endpoint_slots": False,
            "endpoint_props": True,
            "endpoint_metrics": True,
            "build_info": self.engine_version,
            "is_sleeping": False,
        }
