"""The fields of Anthropic's messages, with their types, as `fields` has those of chats.

What clients may write beside them, such as marks for caches, is left off.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models_catalog.engines.fields import MODEL_NAME, Cap, Name, Probability, Temperature, TopK

Id = Annotated[str, Meta(max_length=256)]


class TextBlock(Struct, tag_field="type", tag="text"):
    text: str


class Base64Source(Struct, tag_field="type", tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(Struct, tag_field="type", tag="url"):
    url: str


class ImageBlock(Struct, tag_field="type", tag="image"):
    source: Base64Source | UrlSource


class ToolUse(Struct, tag_field="type", tag="tool_use"):
    id: Id
    name: Name
    input: dict[str, Any]


class ToolResult(Struct, tag_field="type", tag="tool_result", omit_defaults=True):
    tool_use_id: Id
    content: str | list[TextBlock | ImageBlock] | UnsetType = UNSET
    is_error: bool | UnsetType = UNSET


class ThinkingBlock(Struct, tag_field="type", tag="thinking", omit_defaults=True):
    thinking: str
    signature: str | UnsetType = UNSET


Block = TextBlock | ImageBlock | ToolUse | ToolResult | ThinkingBlock


class Turn(Struct):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class ToolSpec(Struct, omit_defaults=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    input_schema: dict[str, Any]
    description: Annotated[str, Meta(max_length=16384)] | UnsetType = UNSET
    # Tools that Anthropic itself runs have other types.
    type: Literal["custom"] | UnsetType | None = UNSET


class AutoChoice(Struct, tag_field="type", tag="auto", omit_defaults=True):
    disable_parallel_tool_use: bool | UnsetType = UNSET


class AnyChoice(Struct, tag_field="type", tag="any", omit_defaults=True):
    disable_parallel_tool_use: bool | UnsetType = UNSET


class ToolChoice(Struct, tag_field="type", tag="tool", omit_defaults=True):
    name: Name
    disable_parallel_tool_use: bool | UnsetType = UNSET


class NoChoice(Struct, tag_field="type", tag="none"):
    pass


class ThinkingOn(Struct, tag_field="type", tag="enabled"):
    budget_tokens: Cap


class ThinkingOff(Struct, tag_field="type", tag="disabled"):
    pass


class Metadata(Struct):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


MESSAGES_OURS: Mapping[str, Any] = {
    "model": MODEL_NAME,
    "messages": Annotated[list[Turn], Meta(min_length=1, max_length=4096)],
    "max_tokens": Cap,
    "stream": bool | None,
    "service_tier": Literal["auto", "standard_only"] | None,
    "metadata": Metadata | None,
}
MESSAGES_COMMON: Mapping[str, Any] = {
    "system": str | list[TextBlock] | None,
    "temperature": Temperature | None,
    "top_p": Probability | None,
    "top_k": TopK | None,
    "stop_sequences": Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(max_length=16)] | None,
    "tools": Annotated[list[ToolSpec], Meta(max_length=128)] | None,
    "tool_choice": AutoChoice | AnyChoice | ToolChoice | NoChoice | None,
    "thinking": ThinkingOn | ThinkingOff | None,
}
