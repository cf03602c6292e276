"""SGLang's server: `rid` from the body is the id, counters move when a call ends, aborts come late."""

from __future__ import annotations

import time
from typing import Any

from devstack.engines.call import Call, EngineRequest
from devstack.engines.counters import EngineCounters, SglangCounters
from devstack.engines.dialects.base import UNBOUNDED, Dialect, EngineError, Header, Json
from devstack.engines.lax import LaxError, lax_bool, lax_cap, lax_int, stream_option
from devstack.engines.options import EngineOptions
from devstack.engines.pieces import Piece
from devstack.engines.prompts import Endpoint

_STREAM_OVERRUN_STEPS = 4
_PLAIN_ABORT_LAG_S = 3.5


class SglangDialect(Dialect):
    """As started with --enable-cache-report and the environment that honours x-override-rid."""

    flavour = "sglang"
    version = "0.5.23"
    open_paths = ("/health", "/metrics")

    def __init__(self, options: EngineOptions) -> None:
        super().__init__(options)
        self._live_ids: set[str] = set()

    def make_counters(self) -> EngineCounters:
        return SglangCounters(self.model)

    def invalid_json(self, body: bytes, reason: str) -> EngineError:
        return self._invalid(
            "json_invalid", len(body), "JSON decode error", f"'input': {{}}, 'ctx': {{'error': {reason!r}}}"
        )

    def _invalid(self, kind: str, field: str | int, message: str, rest: str) -> EngineError:
        text = f"{{'type': '{kind}', 'loc': ('body', {field!r}), 'msg': '{message}', {rest}}}"
        return self.reject(
            400, f"1 validation error:\n  {text}\n\n  POST /v1/chat/completions [{text}]", "Bad Request"
        )

    def check_served(self, endpoint: Endpoint) -> None:
        if endpoint == "embeddings" and not self.has_embeddings:
            message = (
                "This model does not appear to be an embedding model by default. Please add `--is-embedding`."
            )
            raise self.reject(400, message)

    def read_request(self, endpoint: Endpoint, body: Any, headers: dict[bytes, bytes]) -> EngineRequest:
        if not isinstance(body, dict):
            raise self._invalid("dict_type", "", "Input should be a valid dictionary", f"'input': {body!r}")
        try:
            request = self._read(endpoint, body, headers)
        except LaxError as wrong:
            raise self._invalid(
                wrong.kind, wrong.field, wrong.message, f"'input': {wrong.given!r}"
            ) from wrong
        cap = request.cap_tokens
        if cap is not None and cap > self.context_tokens:
            message = (
                f"max_completion_tokens is too large: {cap}."
                f"This model supports at most {self.context_tokens} completion tokens."
            )
            raise self.reject(400, message)
        if cap is not None and cap < 0:
            raise self.reject(400, f"max_new_tokens must be at least 0, got {cap}.")
        if request.n < 1:
            raise self.reject(400, f"n must be at least 1, got {request.n}.")
        return request

    def _read(self, endpoint: Endpoint, body: Json, headers: dict[bytes, bytes]) -> EngineRequest:
        choices = lax_int(body, "n")
        request = self.make_request(
            endpoint,
            body,
            cap=lax_cap(body, self.caps_of(endpoint)),
            stream=lax_bool(body, "stream"),
            n=1 if choices is None else choices,
            include_usage=stream_option(body, "include_usage"),
            continuous_usage=stream_option(body, "continuous_usage_stats"),
        )
        given_id = headers.get(b"x-override-rid", b"").decode("latin-1") or body.get("rid")
        if endpoint == "embeddings":
            self._check_input_ids(body, given_id)
        request.client_ids = self._read_ids(request, given_id)
        request.client_id = next(iter(request.client_ids), None)
        return request

    def _check_input_ids(self, body: Json, given: object) -> None:
        given_input = body["input"]
        is_list = isinstance(given_input, list) and not isinstance(given_input[0], int)
        if is_list and isinstance(given, str) and given:
            # Of chats and completions one id would do.
            raise self.reject(500, "Internal server error: The rid should be a list.", "InternalServerError")

    def _read_ids(self, request: EngineRequest, given: object) -> tuple[str, ...]:
        if isinstance(given, list):
            if request.n > 1 or len(given) != len(request.prompt.counts):
                raise self.reject(
                    400, "The specified rids length mismatch with the batch_size for batch processing."
                )
            return tuple(map(str, given))
        if not isinstance(given, str) or not given:
            return ()
        # One id for several prompts is numbered.
        prompts = len(request.prompt.counts)
        return tuple(f"{given}_{number}" for number in range(prompts)) if prompts > 1 else (given,)

    def target_tokens(self, request: EngineRequest, prompt_tokens: int) -> int:
        limit = self.context_tokens
        if prompt_tokens >= limit:
            message = f"The input ({prompt_tokens} tokens) is longer than the model's context length "
            raise self.reject(400, f"{message}({limit} tokens).")
        cap = request.cap_tokens
        if cap is not None and prompt_tokens + cap > limit:
            message = (
                f"Requested token count exceeds the model's maximum context length of {limit} tokens. "
                f"You requested a total of {prompt_tokens + cap} tokens: {prompt_tokens} tokens from the "
                f"input messages and {cap} tokens for the completion. Please reduce the number of tokens in "
                "the input messages or the completion to fit within the limit."
            )
            raise self.reject(400, message)
        return limit - prompt_tokens if cap is None else cap

    def make_wire_id(self, request: EngineRequest, headers: dict[bytes, bytes]) -> str:
        if request.endpoint == "responses":
            return f"resp_{self.random_hex(32)}"
        if request.endpoint == "messages":
            return f"msg_{self.random_hex(32)}"
        # With several choices the caller's id is lost.
        if request.client_id is not None and request.n == 1:
            return request.client_id
        return self.random_hex(32)

    def begin(self, call: Call) -> None:
        if call.wire_id in self._live_ids:
            raise self.reject(400, f"Duplicate request ID detected: {call.wire_id}")
        self._live_ids.add(call.wire_id)

    def end(self, call: Call) -> None:
        self._live_ids.discard(call.wire_id)

    def response_model(self, request: EngineRequest) -> str:
        # It serves whatever name it is given, and says it back.
        return request.model or self.model

    def overrun_steps(self, call: Call) -> int:
        if call.request.stream:
            return _STREAM_OVERRUN_STEPS if call.steps else 0
        return round(_PLAIN_ABORT_LAG_S * call.rate_per_s) if call.rate_per_s else UNBOUNDED

    def head(self, *, headers: dict[bytes, bytes], requests: int, closing: bool) -> list[Header]:
        return [(b"vary", b"Origin")]

    @staticmethod
    def _choice(index: int, delta: Json, finish_reason: str | None, logprobs: Json | None = None) -> Json:
        return {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            "matched_stop": None,
        }

    def role_chunk(self, call: Call, index: int) -> Json:
        delta = {"reasoning_content": None, "role": "assistant", "content": ""}
        return self.chunk(call, [self._choice(index, delta, None)])

    def token_chunk(self, call: Call, index: int, step: int, piece: Piece) -> Json:
        delta = self.delta(call, piece)
        if piece.kind != "reasoning":
            delta = {"reasoning_content": None, **delta}
        chunk = self.chunk(call, [self._choice(index, delta, None, self.logprobs(call, step, step))])
        if call.request.continuous_usage and not self.hides_usage(call):
            chunk["usage"] = self.usage_of(call, step, min(step, call.reasoning_tokens))
        return chunk

    def finish_chunk(self, call: Call, index: int) -> Json:
        return self.chunk(call, [self._choice(index, {"reasoning_content": None}, call.finish_reason)])

    def plain_body(self, call: Call) -> Json:
        said, message = self.message_of(call)
        message["reasoning_content"] = said.reasoning or None
        logprobs = self.logprobs(call, 1, call.steps)
        return {
            "id": call.wire_id,
            "object": "chat.completion",
            "created": call.created_unix,
            "model": call.model,
            "choices": [
                {
                    "index": index,
                    "message": message,
                    "logprobs": logprobs,
                    "finish_reason": call.finish_reason,
                    "matched_stop": None,
                }
                for index in range(call.request.n)
            ],
            **self.usage_field(call),
            "metadata": self.metadata(call),
        }

    @staticmethod
    def metadata(call: Call) -> Json:
        """What a plain answer says about the weights."""
        versions = [{"version": "default", "start": 0, "end": call.steps}]
        return {"weight_version": "default", "weight_versions": versions}

    def final_usage(self, call: Call, completion: int) -> Json:
        return self.usage_of(
            call, completion, min(call.steps, call.reasoning_tokens) * call.request.sequences
        )

    @staticmethod
    def usage_of(call: Call, completion: int, reasoning: int) -> Json:
        """Usage with so many tokens of each kind."""
        return {
            "prompt_tokens": call.prompt_tokens,
            "total_tokens": call.prompt_tokens + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": call.cached_tokens},
            "reasoning_tokens": reasoning,
            "completion_tokens_details": {"reasoning_tokens": reasoning} if reasoning else None,
        }

    def error_body(self, status: int, message: str, kind: str = "", param: str | None = None) -> Json:
        kind = kind or ("BadRequestError" if status == 400 else "InternalServerError")
        return {"object": "error", "message": message, "type": kind, "param": param, "code": status}

    def error_event(self) -> Json:
        return {"error": self.error_body(500, "The scheduler is gone.")}

    def models(self) -> Json:
        entry = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "sglang",
            "root": self.model,
            "parent": None,
            "max_model_len": self.context_tokens,
        }
        return {"object": "list", "data": [entry]}

    def unauthorized(self) -> EngineError:
        return EngineError(401, {"error": "Unauthorized"})

    def info(self, path: str) -> Json | list[Json] | None:
        if path in ("/get_server_info", "/server_info"):
            return {
                "model_path": self.model,
                "served_model_name": self.model,
                "context_length": self.context_tokens,
                "version": self.engine_version,
            }
        if path in ("/get_model_info", "/model_info"):
            return {
                "model_path": self.model,
                "served_model_name": self.model,
                "tokenizer_path": self.model,
                "is_generation": not self.has_embeddings,
                "weight_version": "default",
            }
        return None
