"""vLLM's server: the caller names the id, usage sums the choices, counters move at every step."""

from __future__ import annotations

import time
from typing import Any

from devstack.engines.call import Call, EngineRequest
from devstack.engines.counters import EngineCounters, VllmCounters
from devstack.engines.dialects.base import Dialect, EngineError, Header, Json
from devstack.engines.lax import LaxError, lax_bool, lax_cap, lax_int, stream_option
from devstack.engines.pieces import Piece
from devstack.engines.prompts import Endpoint

_CACHE_BLOCK_TOKENS = 128
_FINGERPRINT = "vllm-sim"
_KINDS = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 503: "ServiceUnavailableError"}


class VllmDialect(Dialect):
    """As started with --enable-request-id-headers and --enable-prompt-tokens-details."""

    flavour = "vllm"
    version = "0.32.0"
    reasoning_field = "reasoning"
    headers_at_once = True
    roles_first = True
    open_paths = ("/health", "/metrics")

    def make_counters(self) -> EngineCounters:
        return VllmCounters(self.model)

    def invalid_json(self, body: bytes, reason: str) -> EngineError:
        return self._invalid(
            "json_invalid", str(len(body)), "JSON decode error", f"'ctx': {{'error': {reason!r}}}"
        )

    def _invalid(self, kind: str, field: str, message: str, rest: str) -> EngineError:
        text = (
            f"1 validation error:\n  {{'type': '{kind}', 'loc': 'body.{field}', 'msg': '{message}', {rest}}}"
        )
        return self.reject(400, text, "Bad Request", f"body.{field}")

    def check_served(self, endpoint: Endpoint) -> None:
        # A model that generates has no route for embeddings.
        if endpoint == "embeddings" and not self.has_embeddings:
            raise self.not_found()

    def read_request(self, endpoint: Endpoint, body: Any, headers: dict[bytes, bytes]) -> EngineRequest:
        if not isinstance(body, dict):
            raise self._invalid("dict_type", "", "Input should be a valid dictionary", f"'input': {body!r}")
        try:
            request = self._read(endpoint, body, headers)
        except LaxError as wrong:
            given = f"<dict of {len(wrong.given)} items>" if isinstance(wrong.given, dict) else wrong.given
            raise self._invalid(wrong.kind, wrong.field, wrong.message, f"'input': {given!r}") from wrong
        if request.model is not None and request.model != self.model:
            message = f"The model `{request.model}` does not exist. Valid aliases: {self.model}."
            raise self.reject(404, message, "NotFoundError", "model")
        if body.get("stream_options") is not None and not request.stream:
            message = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
            raise self.reject(400, message, param="stream_options")
        if request.n < 1:
            raise self.reject(
                400, f"n must be at least 1, got {request.n}. (parameter=n, value={request.n})", param="n"
            )
        if endpoint == "completions" and request.wish.echo and request.cap_tokens == 0:
            # Only the prompt is wanted back; a token is made all the same.
            request.cap_tokens = 1
        self._check_cap(request.cap_tokens)
        return request

    def _read(self, endpoint: Endpoint, body: Json, headers: dict[bytes, bytes]) -> EngineRequest:
        choices = lax_int(body, "n")
        include = stream_option(body, "include_usage")
        given_id = headers.get(b"x-request-id", b"").decode("latin-1") or body.get("request_id")
        return self.make_request(
            endpoint,
            body,
            cap=lax_cap(body, self.caps_of(endpoint)),
            stream=lax_bool(body, "stream"),
            n=1 if choices is None else choices,
            include_usage=include,
            continuous_usage=include and stream_option(body, "continuous_usage_stats"),
            client_id=given_id if isinstance(given_id, str) else None,
        )

    def _check_cap(self, cap: int | None) -> None:
        if cap is None:
            return
        if cap < 1:
            message = f"max_tokens must be at least 1, got {cap}. (parameter=max_tokens, value={cap})"
            raise self.reject(400, message, param="max_tokens")
        if cap > self.context_tokens:
            message = (
                f"max_tokens={cap} cannot be greater than max_model_len={self.context_tokens}. "
                f"Please request fewer output tokens. (parameter=max_tokens, value={cap})"
            )
            raise self.reject(400, message, param="max_tokens")

    def target_tokens(self, request: EngineRequest, prompt_tokens: int) -> int:
        room = self.context_tokens - prompt_tokens
        limit = f"This model's maximum context length is {self.context_tokens} tokens. However, "
        if room < 0:
            # The tokenizer stops one token past the limit, so the real length never shows.
            seen = self.context_tokens + 1
            message = (
                f"{limit}your prompt contains at least {seen} input tokens, which exceeds this limit even "
                "without any output tokens. Please reduce the length of the input prompt. "
                f"(parameter=input_tokens, value={seen})"
            )
            raise self.reject(400, message, param="input_tokens")
        cap = request.cap_tokens
        if cap is not None and cap > room:
            message = (
                f"{limit}you requested {cap} output tokens and your prompt contains {prompt_tokens} input "
                f"tokens, for a total of {cap + prompt_tokens} tokens. Please reduce the length of the input "
                "prompt or the number of requested output tokens. "
                f"(parameter=input_tokens, value={prompt_tokens})"
            )
            raise self.reject(400, message, param="input_tokens")
        return room if cap is None else cap

    def make_wire_id(self, request: EngineRequest, headers: dict[bytes, bytes]) -> str:
        if request.endpoint == "responses":
            # The caller's id is echoed in a header and used for nothing else.
            return f"resp_{self.random_hex(16)}"
        prefix = {"completions": "cmpl", "embeddings": "embd"}.get(request.endpoint, "chatcmpl")
        return f"{prefix}-{request.client_id or self.random_hex(16)}"

    def make_tool_id(self) -> str:
        return f"chatcmpl-tool-{self.random_hex(16)}"

    def head(self, *, headers: dict[bytes, bytes], requests: int, closing: bool) -> list[Header]:
        echoed = headers.get(b"x-request-id") or self.random_hex(32).encode()
        return [(b"vary", b"Origin"), (b"x-request-id", echoed)]

    def _with_usage_so_far(self, call: Call, chunk: Json, step: int) -> Json:
        # While a stream runs, each chunk tells of its own choice only.
        if call.request.continuous_usage and not self.hides_usage(call):
            chunk["usage"] = {
                "prompt_tokens": call.prompt_tokens,
                "total_tokens": call.prompt_tokens + step,
                "completion_tokens": step,
                "completion_tokens_details": self._details(min(step, call.reasoning_tokens)),
            }
        return chunk

    def role_chunk(self, call: Call, index: int) -> Json:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = self._with_usage_so_far(call, self.chunk(call, [choice]), 0)
        return chunk | {"prompt_token_ids": None, "prompt_text": None}

    def token_chunk(self, call: Call, index: int, step: int, piece: Piece) -> Json:
        last = step == call.target_steps
        choice: Json = {
            "index": index,
            "delta": self.delta(call, piece),
            "logprobs": self.logprobs(call, step, step),
            "finish_reason": call.finish_reason if last else None,
        }
        if last:
            choice["stop_reason"] = None
        choice["token_ids"] = None
        chunk = self._with_usage_so_far(call, self.chunk(call, [choice]), step)
        if last and not call.request.include_usage:
            chunk["system_fingerprint"] = _FINGERPRINT
        return chunk

    def usage_chunk(self, call: Call) -> Json | None:
        chunk = super().usage_chunk(call)
        if chunk is None:
            return None
        usage = chunk["usage"]
        if usage is not None:
            # A stream leaves out what was never set.
            del usage["prompt_tokens_details"]["multimodal_tokens"]
            if usage["completion_tokens_details"] is None:
                del usage["completion_tokens_details"]
        return chunk | {"system_fingerprint": _FINGERPRINT}

    def plain_body(self, call: Call) -> Json:
        said, message = self.message_of(call)
        message |= {
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": said.reasoning or None,
        }
        logprobs = self.logprobs(call, 1, call.steps)
        ending = {
            "finish_reason": call.finish_reason,
            "stop_reason": None,
            "token_ids": None,
            "routed_experts": None,
        }
        return {
            "id": call.wire_id,
            "object": "chat.completion",
            "created": call.created_unix,
            "model": call.model,
            "choices": [
                {"index": index, "message": message, "logprobs": logprobs, **ending}
                for index in range(call.request.n)
            ],
            "service_tier": None,
            "system_fingerprint": _FINGERPRINT,
            **self.usage_field(call),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def final_usage(self, call: Call, completion: int) -> Json:
        whole_blocks = call.prompt_tokens // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS
        return {
            "prompt_tokens": call.prompt_tokens,
            "total_tokens": call.prompt_tokens + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {
                "cached_tokens": call.cached_tokens,
                "created_cache_tokens": max(0, whole_blocks - call.cached_tokens),
                "multimodal_tokens": None,
            },
            "completion_tokens_details": self._details(
                min(call.steps, call.reasoning_tokens) * call.request.sequences
            ),
        }

    @staticmethod
    def _details(reasoning_tokens: int) -> Json | None:
        return {"reasoning_tokens": reasoning_tokens} if reasoning_tokens else None

    def error_body(self, status: int, message: str, kind: str = "", param: str | None = None) -> Json:
        kind = kind or _KINDS.get(status, "InternalServerError")
        return {"error": {"message": message, "type": kind, "param": param, "code": status}}

    def error_event(self) -> Json:
        text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
        return self.error_body(500, text, "InternalServerError")

    def models(self) -> Json:
        now_unix = int(time.time())
        permission = {
            "id": f"modelperm-{self.random_hex(16)}",
            "object": "model_permission",
            "created": now_unix,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        entry = {
            "id": self.model,
            "object": "model",
            "created": now_unix,
            "owned_by": "vllm",
            "root": self.model,
            "parent": None,
            "max_model_len": self.context_tokens,
            "permission": [permission],
        }
        return {"object": "list", "data": [entry]}

    def unauthorized(self) -> EngineError:
        return EngineError(401, {"error": "Unauthorized"})

    def info(self, path: str) -> Json | list[Json] | None:
        if path == "/version":
            return {"version": self.engine_version}
        return {"server_load": self.counters.running} if path == "/load" else None
