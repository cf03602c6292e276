"""The object that /v1/responses answers with, as each engine fills it."""

from __future__ import annotations

import time
from typing import ClassVar

from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect, Json
from devstack.engines.dialects.llamacpp import LlamacppDialect


class ResponseStyle:
    """As OpenAI's documents have it.

    `has_positions`: events are numbered and say which item and part they belong to.
    """

    has_positions: ClassVar[bool] = True

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def begun(self, call: Call) -> Json:
        """The answer in the first events."""
        return self.shell(call) | {"output": [], "status": "in_progress", "usage": None}

    def whole(self, call: Call, items: list[Json], *, plain: bool) -> Json:
        """The answer at its end. Books the usage that it claims."""
        cut = call.finish_reason == "length"
        body = self.shell(call) | {"output": items, "status": "incomplete" if cut else "completed"}
        body["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        return body | self.dialect.usage_field(call, lambda output: self.usage(call, output))

    def says_incomplete(self, call: Call) -> bool:
        """Whether the last event of a stream says so."""
        return call.finish_reason == "length"

    def beside(self, call: Call) -> Json:
        """What stands beside the answer in the last event."""
        return {}

    def shell(self, call: Call) -> Json:
        """The answer's members that do not change."""
        return {
            "id": call.wire_id,
            "object": "response",
            "created_at": call.created_unix,
            "model": call.model,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": call.record.cap_tokens,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "top_p": None,
            "truncation": "disabled",
            "user": None,
            "metadata": {},
        }

    def message(self, item_id: str, parts: list[Json], status: str) -> Json:
        """An item that is a message."""
        return {"id": item_id, "content": parts, "role": "assistant", "status": status, "type": "message"}

    def part(self, text: str) -> Json:
        """A part of a message."""
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}

    def first_part(self) -> Json:
        """A part that is begun."""
        return self.part("")

    def usage(self, call: Call, output: int) -> Json:
        """The counts of a finished call."""
        prompt = call.first_prompt_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": call.cached_tokens},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": min(call.steps, call.reasoning_tokens)},
            "total_tokens": prompt + output,
        }


class SglangResponses(ResponseStyle):
    """Says that a response is stored, and is of another mind about `text` until it is whole."""

    def begun(self, call: Call) -> Json:
        return super().begun(call) | {"text": None}

    def shell(self, call: Call) -> Json:
        return super().shell(call) | {"store": True}

    def message(self, item_id: str, parts: list[Json], status: str) -> Json:
        return super().message(item_id, parts, status) | {"phase": "final_answer"}

    def usage(self, call: Call, output: int) -> Json:
        usage = super().usage(call, output)
        usage["input_tokens_details"]["cache_write_tokens"] = 0
        return usage


class VllmResponses(ResponseStyle):
    """Ends every stream with response.completed, whatever the status in it says."""

    def says_incomplete(self, call: Call) -> bool:
        return False

    def shell(self, call: Call) -> Json:
        nothing = (
            "incomplete_details", "instructions", "metadata", "max_tool_calls", "previous_response_id",
            "prompt", "reasoning", "text", "top_logprobs", "user", "kv_transfer_params",
            "ec_transfer_params", "input_messages", "output_messages",
        )  # fmt: skip
        return {
            "id": call.wire_id,
            "created_at": call.created_unix,
            "model": call.model,
            "object": "response",
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto" if call.request.wish.tools else "none",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": call.record.cap_tokens,
            "service_tier": "auto",
            "truncation": "disabled",
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            **dict.fromkeys(nothing),
        }

    def message(self, item_id: str, parts: list[Json], status: str) -> Json:
        return super().message(item_id, parts, status) | {"phase": None}

    def first_part(self) -> Json:
        return self.part("") | {"logprobs": []}

    def usage(self, call: Call, output: int) -> Json:
        usage = super().usage(call, output)
        usage["input_tokens_details"] |= {
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        }
        usage["output_tokens_details"] |= {
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        }
        return usage


class LlamacppResponses(ResponseStyle):
    """Little more than the text; an answer that the cap has cut is complete."""

    has_positions = False

    def begun(self, call: Call) -> Json:
        return {"id": call.wire_id, "object": "response", "status": "in_progress"}

    def whole(self, call: Call, items: list[Json], *, plain: bool) -> Json:
        body = {
            "id": call.wire_id,
            "object": "response",
            "created_at": call.created_unix,
            "status": "completed",
            "model": call.model,
            "output": items,
            **self.dialect.usage_field(call, lambda output: self.usage(call, output)),
        }
        return body | {"completed_at": int(time.time())} if plain else body

    def says_incomplete(self, call: Call) -> bool:
        return False

    def beside(self, call: Call) -> Json:
        dialect = self.dialect
        assert isinstance(dialect, LlamacppDialect)
        if dialect.hides_usage(call):
            return {}
        return {"timings": dialect.timings(call, call.reported_tokens(1))}

    def part(self, text: str) -> Json:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def first_part(self) -> Json:
        return {"type": "output_text", "text": ""}

    def usage(self, call: Call, output: int) -> Json:
        usage = super().usage(call, output)
        usage.pop("output_tokens_details")
        return usage


_STYLES: dict[str, type[ResponseStyle]] = {
    "sglang": SglangResponses,
    "vllm": VllmResponses,
    "llamacpp": LlamacppResponses,
}


def style_of(dialect: Dialect) -> ResponseStyle:
    """How an engine fills its answers."""
    return _STYLES.get(dialect.flavour, ResponseStyle)(dialect)
