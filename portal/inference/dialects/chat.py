"""POST /v1/chat/completions."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models_catalog.engines import Endpoint, EngineAdapter
from models_catalog.engines.fields import (
    COMMON_FIELDS,
    GATEWAY_FIELDS,
    ImagePart,
    JsonSchemaFormat,
    UserMessage,
)
from portal.inference import stream_events
from portal.inference.dialects.base import ModelRequest, Prompt
from portal.inference.dialects.openai import MAX_CHOICES, OpenAIAnswers
from portal.inference.dialects.reading import (
    OVERHEAD_PER_MESSAGE_TOKENS,
    FieldRules,
    check_images,
    estimate,
    missing,
    needs_of,
    output_cap,
    prefix_key,
    printed_estimate,
    prompt_bound,
    read_stream,
    sort_fields,
)
from portal.inference.errors import bad_request
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun

# Fields that templates print; what a catalog adds may be printed too.
PRINTED = frozenset({"tools", "response_format", "tool_choice"})

_RULES = FieldRules(
    ours=GATEWAY_FIELDS,
    common=COMMON_FIELDS,
    takes_engine_fields=True,
    reasons={
        "best_of": "best_of is not offered: every choice is a charge of its own.",
        "functions": "functions is the old form of tools; use tools.",
        "function_call": "function_call is the old form of tool_choice; use tool_choice.",
        "store": "Answers are not stored; leave store out.",
    },
)


class ChatDialect(OpenAIAnswers):
    endpoint = Endpoint.CHAT

    def read_request(
        self, body: Mapping[str, Any], *, raw: bytes, entry: ModelEntry, engines: Collection[EngineAdapter]
    ) -> ModelRequest:
        known, passed = sort_fields(body, _RULES, entry=entry, engines=engines)
        if "messages" not in known:
            raise missing("messages")
        choices = known.get("n") or 1
        if choices > MAX_CHOICES:
            raise bad_request(f"n is {choices}; a call has at most {MAX_CHOICES} choices.", param="n")
        stream, include_usage = read_stream(known)
        messages = known["messages"]
        images = _count_images(messages)
        check_images(images, entry=entry, param="messages")
        bound, estimated = _prompt_size(messages, passed, entry, images)
        asked = max(known.get("max_tokens") or 0, known.get("max_completion_tokens") or 0)
        cap_name = "max_completion_tokens" if known.get("max_completion_tokens") == asked else "max_tokens"
        return ModelRequest(
            dialect=self,
            model=entry.slug,
            prompts=(Prompt({"messages": messages}, max(1, min(estimated, bound))),),
            fields=passed,
            stream=stream,
            include_usage=include_usage,
            output_cap_tokens=output_cap(cap_name, asked, entry=entry, estimated_prompt_tokens=estimated),
            prompt_bound_tokens=bound,
            choices=choices,
            payload_sha256=hashlib.sha256(raw).hexdigest(),
            needs=needs_of(
                tools=passed.get("tools"),
                vision=images,
                logprobs=passed.get("logprobs") or passed.get("top_logprobs"),
                json_schema=isinstance(passed.get("response_format"), JsonSchemaFormat),
            ),
            prefix_key=prefix_key(*(_texts([message]) for message in messages[:2])),
        )

    def read_run(
        self, events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool, name: PublicName
    ) -> EventRun:
        return stream_events.read_run(events, engine=engine, include_usage=include_usage, name=name)


def _prompt_size(
    messages: list[Any], passed: Mapping[str, Any], entry: ModelEntry, images: int
) -> tuple[int, int]:
    """How many tokens the prompt has at most, by its bytes, the template's allowance and the context; and
    about how many, without the template."""
    text = _texts(messages)
    printed = {name: value for name, value in passed.items() if name in PRINTED or name not in COMMON_FIELDS}
    tool_calls = sum(len(getattr(message, "tool_calls", None) or ()) for message in messages)
    bound = prompt_bound(
        text, printed=printed, turns=len(messages), tool_calls=tool_calls, images=images, entry=entry
    )
    estimated = estimate(text, context_tokens=entry.context_tokens) + printed_estimate(printed)
    return bound, estimated + OVERHEAD_PER_MESSAGE_TOKENS * len(messages) // 4


def _count_images(messages: list[Any]) -> int:
    count = 0
    for message in messages:
        if not isinstance(message, UserMessage) or isinstance(message.content, str):
            continue
        for part in message.content:
            if isinstance(part, ImagePart):
                # A backend must not be sent to fetch addresses that a client names.
                if not part.image_url.url.startswith("data:image/"):
                    raise bad_request("Images must be sent as data: URLs.", param="messages")
                count += 1
    return count


def _texts(messages: list[Any]) -> str:
    """All text that a template may print of the messages."""
    pieces: list[str] = []
    for message in messages:
        content = message.content
        if isinstance(content, str):
            pieces.append(content)
        elif content is not None:
            pieces.extend(part.text for part in content if not isinstance(part, ImagePart))
        for field in ("name", "tool_call_id"):
            value = getattr(message, field, None)
            if isinstance(value, str):
                pieces.append(value)
        tool_calls = getattr(message, "tool_calls", None)
        if isinstance(tool_calls, list):
            for call in tool_calls:
                pieces += [call.function.name, call.function.arguments * 2, call.id]
    return "\n".join(pieces)


CHAT = ChatDialect()
