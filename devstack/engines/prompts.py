"""What the endpoints' bodies ask: the prompts and how long they are, and what the answer must look like.

Each endpoint has words of its own for the same things. The engines agree about those words, so they are read
in one place; what an engine refuses is up to its dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from devstack.engines.lax import LaxError, lax_int, lax_messages
from devstack.engines.tokens import count_prompt_tokens, count_text_tokens, last_user_text

Json = dict[str, Any]
Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages"]

CAPS: Mapping[Endpoint, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "embeddings": (),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
"""Fields that hold the cap, the strongest first."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One or several prompts. `directed_by` is the text whose directive counts: of the last user message, or
    of the first prompt. `texts` are those of /v1/completions, empty for token ids."""

    counts: tuple[int, ...]
    directed_by: str
    texts: tuple[str, ...] = ()
    follows_tool: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True)
class Wish:
    """What the answer must look like. `must_call`: a tool has to be called; tools that may not be called are
    not here. `schema` is None when text may be free. `top_logprobs` is None when no logprobs are wanted."""

    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    schema: object = None
    top_logprobs: int | None = None
    echo: bool = False
    base64: bool = False
    dimensions: int | None = None


def read_prompt(endpoint: Endpoint, body: Json) -> Prompt:
    """Raises LaxError on a prompt that is none."""
    match endpoint:
        case "completions":
            return _texts(body, "prompt")
        case "embeddings":
            return _texts(body, "input")
        case "responses":
            messages = messages_of_response(body)
        case "messages":
            messages = messages_of_anthropic(body)
        case _:
            messages = lax_messages(body)
    return Prompt(
        (count_prompt_tokens(messages),),
        last_user_text(messages),
        follows_tool=bool(messages) and is_tool_result(messages[-1]),
    )


def is_tool_result(message: Mapping[str, Any]) -> bool:
    """Whether a message brings what a tool said."""
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    kinds = [block.get("type") for block in blocks if isinstance(block, dict)]
    return message.get("role") == "tool" or "tool_result" in kinds


def _texts(body: Json, field: str) -> Prompt:
    if field not in body:
        raise LaxError("missing", field, "Field required", body)
    given = body[field]
    if isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        given = [given]
    prompts = given if isinstance(given, list) else [given]
    counts: list[int] = []
    texts: list[str] = []
    for prompt in prompts:
        if isinstance(prompt, str):
            counts.append(count_text_tokens(prompt))
            texts.append(prompt)
        elif isinstance(prompt, list) and prompt and all(isinstance(item, int) for item in prompt):
            counts.append(len(prompt))
            texts.append("")
        else:
            raise LaxError("string_type", field, "Input should be a valid string", given)
    if not counts:
        raise LaxError("too_short", field, "List should have at least 1 item", given)
    return Prompt(tuple(counts), texts[0], tuple(texts))


def messages_of_response(body: Json) -> list[Json]:
    """The chat messages that a /v1/responses body amounts to. Raises LaxError."""
    if "input" not in body:
        raise LaxError("missing", "input", "Field required", body)
    messages: list[Json] = []
    if isinstance(body.get("instructions"), str):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise LaxError("list_type", "input", "Input should be a valid list", given)
    return messages + [_message_of_item(item) for item in given]


def _message_of_item(item: Json) -> Json:
    match item.get("type", "message"):
        case "function_call_output":
            return {"role": "tool", "content": item.get("output")}
        case "message":
            content = item.get("content")
            if isinstance(content, list):
                content = [_chat_part(part) for part in content]
            return {"role": item.get("role"), "content": content}
        case _:
            return {"role": "assistant", "content": None}


def _chat_part(part: object) -> object:
    if isinstance(part, dict) and part.get("type") in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    return part


def messages_of_anthropic(body: Json) -> list[Json]:
    """The chat messages that a /v1/messages body amounts to. Raises LaxError."""
    messages = lax_messages(body)
    system = body.get("system")
    if system is None:
        return messages
    return [{"role": "system", "content": system}, *messages]


def read_wish(endpoint: Endpoint, body: Json) -> Wish:
    """What is not understood is not wished."""
    if endpoint == "embeddings":
        return Wish(base64=body.get("encoding_format") == "base64", dimensions=lax_int(body, "dimensions"))
    if endpoint == "completions":
        logprobs = body.get("logprobs")
        return Wish(
            top_logprobs=int(logprobs) if isinstance(logprobs, int) else None, echo=body.get("echo") is True
        )
    tools, must_call = _tools(body)
    top = body.get("top_logprobs")
    return Wish(
        tools=tools,
        must_call=must_call,
        schema=_schema(endpoint, body),
        top_logprobs=(top if isinstance(top, int) else 0) if body.get("logprobs") is True else None,
    )


def _tools(body: Json) -> tuple[tuple[Tool, ...], bool]:
    given = body.get("tools")
    known = [_tool(entry) for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
    tools = tuple(tool for tool in known if tool is not None)
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "none":
        return (), False
    if kind in ("function", "tool"):
        assert isinstance(choice, dict)
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else choice.get("name")
        return tuple(tool for tool in tools if tool.name == name), True
    return tools, kind in ("required", "any")


def _tool(entry: Json) -> Tool | None:
    """A tool in any of the three notations."""
    function = entry.get("function")
    inner = function if isinstance(function, dict) else entry
    name = inner.get("name")
    if not isinstance(name, str):
        return None
    return Tool(name, inner.get("parameters", inner.get("input_schema", {"type": "object"})))


def _schema(endpoint: Endpoint, body: Json) -> object:
    if endpoint == "responses":
        text = body.get("text")
        wanted = text.get("format") if isinstance(text, dict) else None
        holder = wanted
    else:
        wanted = body.get("response_format")
        holder = wanted.get("json_schema") if isinstance(wanted, dict) else None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return {"type": "object"}
    return holder.get("schema") if kind == "json_schema" and isinstance(holder, dict) else None
