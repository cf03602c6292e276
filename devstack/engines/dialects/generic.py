"""A backend that keeps to OpenAI's documents and offers nothing else: no timings, metrics or id of ours."""

from __future__ import annotations

import time
from typing import Any

from devstack.engines.call import Call, EngineRequest
from devstack.engines.counters import EngineCounters
from devstack.engines.dialects.base import Dialect, EngineError, Json
from devstack.engines.lax import LaxError, lax_bool, lax_cap, lax_int, stream_option
from devstack.engines.pieces import Piece
from devstack.engines.prompts import Endpoint

_KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class GenericDialect(Dialect):
    """Any OpenAI-compatible server."""

    flavour = "generic"
    server_header = False

    def make_counters(self) -> EngineCounters:
        return EngineCounters()

    def invalid_json(self, body: bytes, reason: str) -> EngineError:
        return self.reject(400, f"We could not parse the JSON body of your request. ({reason})")

    def read_request(self, endpoint: Endpoint, body: Any, headers: dict[bytes, bytes]) -> EngineRequest:
        if not isinstance(body, dict):
            raise self.reject(400, "The body must be a JSON object.")
        try:
            choices = lax_int(body, "n")
            request = self.make_request(
                endpoint,
                body,
                cap=lax_cap(body, self.caps_of(endpoint)),
                stream=lax_bool(body, "stream"),
                n=1 if choices is None else choices,
                include_usage=stream_option(body, "include_usage"),
            )
        except LaxError as wrong:
            raise self.reject(
                400, f"Invalid value for '{wrong.field}': {wrong.message}", param=wrong.field
            ) from wrong
        if request.model is not None and request.model != self.model:
            raise EngineError(
                404, self._error(f"The model `{request.model}` does not exist", "model_not_found")
            )
        if endpoint == "messages" and request.cap_tokens is None:
            raise self.reject(400, "max_tokens: Field required", param="max_tokens")
        if request.n < 1 or (request.cap_tokens is not None and request.cap_tokens < 1):
            raise self.reject(400, "Invalid value: expected a value >= 1")
        return request

    def target_tokens(self, request: EngineRequest, prompt_tokens: int) -> int:
        room = self.context_tokens - prompt_tokens
        wanted = 1 if request.cap_tokens is None else request.cap_tokens
        if wanted > room:
            message = (
                f"This model's maximum context length is {self.context_tokens} tokens. However, you "
                f"requested {prompt_tokens + wanted} tokens ({prompt_tokens} in the messages, "
                f"{wanted} in the completion)."
            )
            raise EngineError(400, self._error(message, "context_length_exceeded", "messages"))
        return room if request.cap_tokens is None else request.cap_tokens

    def make_wire_id(self, request: EngineRequest, headers: dict[bytes, bytes]) -> str:
        prefixes = {"chat": "chatcmpl-", "completions": "cmpl-", "responses": "resp_", "messages": "msg_"}
        return prefixes.get(request.endpoint, "embd-") + self.random_text(29)

    def chunk(self, call: Call, choices: list[Json]) -> Json:
        chunk = super().chunk(call, choices)
        if call.request.include_usage and not self.hides_usage(call):
            chunk["usage"] = None
        return chunk

    def role_chunk(self, call: Call, index: int) -> Json:
        return self.chunk(
            call, [{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        )

    def token_chunk(self, call: Call, index: int, step: int, piece: Piece) -> Json:
        choice: Json = {"index": index, "delta": self.delta(call, piece), "finish_reason": None}
        if call.request.wish.top_logprobs is not None:
            choice["logprobs"] = self.logprobs(call, step, step)
        return self.chunk(call, [choice])

    def finish_chunk(self, call: Call, index: int) -> Json:
        return self.chunk(call, [{"index": index, "delta": {}, "finish_reason": call.finish_reason}])

    def plain_body(self, call: Call) -> Json:
        said, message = self.message_of(call)
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        ending: Json = {"message": message, "finish_reason": call.finish_reason}
        if call.request.wish.top_logprobs is not None:
            ending["logprobs"] = self.logprobs(call, 1, call.steps)
        return {
            "id": call.wire_id,
            "object": "chat.completion",
            "created": call.created_unix,
            "model": call.model,
            "choices": [{"index": index, **ending} for index in range(call.request.n)],
            **self.usage_field(call),
        }

    def final_usage(self, call: Call, completion: int) -> Json:
        reasoning = min(call.steps, call.reasoning_tokens) * call.request.sequences
        return {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": call.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": call.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def error_body(self, status: int, message: str, kind: str = "", param: str | None = None) -> Json:
        kind = kind or _KINDS.get(status, "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": param, "code": None}}

    def _error(self, message: str, code: str, param: str | None = None) -> Json:
        body = self.error_body(400, message, param=param)
        body["error"]["code"] = code
        return body

    def models(self) -> Json:
        entry = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "generic"}
        return {"object": "list", "data": [entry]}

    def unauthorized(self) -> EngineError:
        return EngineError(401, self._error("Incorrect API key provided.", "invalid_api_key"))

    def not_found(self) -> EngineError:
        return self.reject(404, "Unknown request URL.")
