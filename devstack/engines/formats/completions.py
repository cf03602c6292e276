"""/v1/completions: several prompts, text without roles.

llama.cpp says usage in the chunk that ends a choice, asked for or not; the others in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from devstack.engines.call import Call
from devstack.engines.dialects.base import Json
from devstack.engines.dialects.llamacpp import LlamacppDialect
from devstack.engines.dialects.sglang import SglangDialect
from devstack.engines.formats.base import DONE, Format, Stream, data_event


class CompletionsFormat(Format):
    """The object `text_completion`."""

    endpoint = "completions"

    def plain(self, call: Call) -> Json:
        said = call.said()
        text = said.reasoning + said.content
        only_prompt = call.request.wish.echo and call.record.cap_tokens == 1 and self._is_vllm
        choices = []
        for index in range(call.request.sequences):
            prompt = call.request.prompt.texts[index // call.request.n] if call.request.wish.echo else ""
            whole = prompt if only_prompt else prompt + text
            choices.append(
                self.choice(call, index, whole, call.finish_reason, self.logprobs(call, 1, call.steps))
            )
        body = self.shell(call, choices) | self.usage(call) | self._timings(call)
        if self._is_vllm:
            nothing = ("service_tier", "kv_transfer_params", "ec_transfer_params", "metrics")
            body |= {"system_fingerprint": "vllm-sim", **dict.fromkeys(nothing)}
        if isinstance(self.dialect, SglangDialect):
            body["metadata"] = self.dialect.metadata(call)
        return body

    def stream(self, call: Call) -> Stream:
        return CompletionsStream(self, call)

    @property
    def _is_vllm(self) -> bool:
        return self.dialect.flavour == "vllm"

    def shell(self, call: Call, choices: list[Json]) -> Json:
        """An answer or a chunk without usage; they are the same object."""
        if isinstance(self.dialect, LlamacppDialect):
            return {
                "choices": choices,
                "created": call.created_unix,
                "model": call.model,
                "system_fingerprint": self.dialect.engine_version,
                "object": "text_completion",
                "id": call.wire_id,
            }
        return {
            "id": call.wire_id,
            "object": "text_completion",
            "created": call.created_unix,
            "model": call.model,
            "choices": choices,
        }

    def choice(
        self, call: Call, index: int, text: str, finish_reason: str | None, logprobs: Json | None
    ) -> Json:
        """One choice of an answer, or of a chunk."""
        if isinstance(self.dialect, LlamacppDialect):
            return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        if isinstance(self.dialect, SglangDialect):
            choice["matched_stop"] = None
        elif self._is_vllm:
            choice["stop_reason"] = None
            if call.request.stream:
                choice |= {"prompt_token_ids": None, "token_ids": None}
            else:
                nothing = ("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")
                choice |= dict.fromkeys(nothing)
        return choice

    def usage(self, call: Call) -> Json:
        """The usage member."""
        return self.dialect.usage_field(call, lambda completion: self._usage_of(call, completion))

    def _usage_of(self, call: Call, completion: int) -> Json:
        usage = self.dialect.final_usage(call, completion)
        if self._is_vllm:
            # Blocks that were written to the cache are counted for chats only.
            details: dict[str, Any] = {"cached_tokens": call.cached_tokens}
            if call.request.stream:
                usage.pop("completion_tokens_details")
            else:
                details |= {"created_cache_tokens": None, "multimodal_tokens": None}
            usage["prompt_tokens_details"] = details
        return usage

    def usage_so_far(self, call: Call, step: int) -> Json:
        """What a chunk adds while the stream runs: counts of its own choice."""
        dialect = self.dialect
        if dialect.hides_usage(call):
            return {}
        if isinstance(dialect, LlamacppDialect):
            return {"timings": dialect.timings(call, step)} if call.request.timings_per_token else {}
        if not call.request.continuous_usage:
            return {}
        if isinstance(dialect, SglangDialect):
            return {"usage": dialect.usage_of(call, step, min(step, call.reasoning_tokens))}
        counts = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens + step}
        return {"usage": counts | {"completion_tokens": step}}

    def _timings(self, call: Call) -> Json:
        dialect = self.dialect
        if not isinstance(dialect, LlamacppDialect) or dialect.hides_usage(call):
            return {}
        return {"timings": dialect.timings(call, call.reported_tokens(1))}

    def final_chunks(self, call: Call) -> Iterator[Json]:
        """The chunks after the last token."""
        if isinstance(self.dialect, LlamacppDialect):
            for index in range(call.request.sequences):
                shell = self.shell(call, [self.choice(call, index, "", call.finish_reason, None)])
                yield shell | self.usage(call) | self._timings(call)
            return
        if not self._is_vllm:
            for index in range(call.request.sequences):
                yield self.shell(call, [self.choice(call, index, "", call.finish_reason, None)])
        if call.request.include_usage and not self.dialect.hides_usage(call):
            chunk = self.shell(call, []) | self.usage(call)
            yield chunk | {"system_fingerprint": "vllm-sim"} if self._is_vllm else chunk

    @staticmethod
    def logprobs(call: Call, first_step: int, last_step: int) -> Json | None:
        """The logprobs of these tokens, None when they were not asked for."""
        top = call.request.wish.top_logprobs
        if top is None:
            return None
        texts = [call.piece(step).text for step in range(first_step, last_step + 1)]
        offsets = [sum(map(len, texts[:number])) for number in range(len(texts))]
        return {
            "text_offset": offsets,
            "token_logprobs": [-0.5] * len(texts),
            "tokens": texts,
            "top_logprobs": [{text: -0.5} if top else None for text in texts],
        }


class CompletionsStream(Stream):
    """A chunk for each token of each choice; vLLM ends a choice in its last token's."""

    def __init__(self, form: CompletionsFormat, call: Call) -> None:
        super().__init__(form.dialect, call)
        self._form = form

    def opening(self) -> Iterator[bytes]:
        return iter(())

    def token(self, step: int) -> Iterator[tuple[bytes, int]]:
        form, call = self._form, self.call
        text = call.piece(step).text
        ends = self.dialect.flavour == "vllm" and step == call.target_steps
        for index in range(call.request.sequences):
            finish_reason = call.finish_reason if ends else None
            choice = form.choice(call, index, text, finish_reason, form.logprobs(call, step, step))
            yield data_event(form.shell(call, [choice]) | form.usage_so_far(call, step)), 1

    def ending(self) -> Iterator[bytes]:
        return map(data_event, self._form.final_chunks(self.call))

    def last(self) -> bytes:
        return DONE
