"""The fields of responses, with their types, as `fields` has those of chats."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models_catalog.engines.fields import (
    MODEL_NAME,
    Cap,
    JsonObjectFormat,
    Name,
    Probability,
    ServiceTier,
    Temperature,
    TextFormat,
    User,
)

Id = Annotated[str, Meta(max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Struct, tag_field="type", tag="input_text"):
    text: str


class OutputText(Struct, tag_field="type", tag="output_text"):
    text: str
    # Engines want the list, and have no use for what is in it.
    annotations: list[dict[str, Any]] = []

    def __post_init__(self) -> None:
        self.annotations = []


class RefusalText(Struct, tag_field="type", tag="refusal"):
    refusal: str


class InputImage(Struct, tag_field="type", tag="input_image", omit_defaults=True):
    image_url: str
    detail: Literal["auto", "low", "high"] | UnsetType = UNSET


class InputMessage(Struct, tag_field="type", tag="message", omit_defaults=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | OutputText | RefusalText | InputImage]
    id: Id | UnsetType = UNSET
    status: Status | UnsetType = UNSET


class FunctionCall(Struct, tag_field="type", tag="function_call", omit_defaults=True):
    call_id: Id
    name: Name
    arguments: str
    id: Id | UnsetType = UNSET
    status: Status | UnsetType = UNSET


class FunctionCallOutput(Struct, tag_field="type", tag="function_call_output", omit_defaults=True):
    call_id: Id
    output: str | list[InputText]
    id: Id | UnsetType = UNSET
    status: Status | UnsetType = UNSET


class SummaryText(Struct, tag_field="type", tag="summary_text"):
    text: str


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    text: str


class ReasoningItem(Struct, tag_field="type", tag="reasoning", omit_defaults=True):
    id: Id
    # Required by engines, also when it is empty.
    summary: list[SummaryText]
    content: list[ReasoningText] | UnsetType | None = UNSET


InputItem = InputMessage | FunctionCall | FunctionCallOutput | ReasoningItem
InputItems = Annotated[list[InputItem], Meta(min_length=1, max_length=4096)]


class FunctionTool(Struct, tag_field="type", tag="function", omit_defaults=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Annotated[str, Meta(max_length=16384)] | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET


class NamedTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    name: Name


class SchemaFormat(
    Struct, tag_field="type", tag="json_schema", omit_defaults=True, forbid_unknown_fields=True
):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    schema: dict[str, Any]
    description: Annotated[str, Meta(max_length=16384)] | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET


class TextOptions(Struct, omit_defaults=True, forbid_unknown_fields=True):
    format: TextFormat | JsonObjectFormat | SchemaFormat | UnsetType = UNSET
    verbosity: Literal["low", "medium", "high"] | UnsetType | None = UNSET


class ReasoningOptions(Struct, omit_defaults=True, forbid_unknown_fields=True):
    effort: Literal["none", "minimal", "low", "medium", "high"] | UnsetType | None = UNSET
    summary: Literal["auto", "concise", "detailed"] | UnsetType | None = UNSET


class ResponseStreamOptions(Struct, forbid_unknown_fields=True):
    # Padding against those who watch the sizes of packets; ours is not padded.
    include_obfuscation: bool = False


RESPONSES_OURS: Mapping[str, Any] = {
    "model": MODEL_NAME,
    "input": str | list[Any],
    "stream": bool | None,
    "stream_options": ResponseStreamOptions | None,
    "max_output_tokens": Cap | None,
    "service_tier": ServiceTier | None,
    "truncation": Literal["disabled"] | None,
    # Nothing is kept between calls.
    "store": Literal[False] | None,
    "background": Literal[False] | None,
    "previous_response_id": None,
    "conversation": None,
    "prompt": None,
    # What clients tell their provider about themselves.
    "user": User | None,
    "safety_identifier": User | None,
    "prompt_cache_key": User | None,
    "metadata": dict[str, str] | None,
    # Reasoning is not encrypted here, so that asking for it changes nothing.
    "include": list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None,
}
RESPONSES_COMMON: Mapping[str, Any] = {
    "instructions": str | None,
    "temperature": Temperature | None,
    "top_p": Probability | None,
    "top_logprobs": Annotated[int, Meta(ge=0, le=20)] | None,
    "tools": Annotated[list[FunctionTool], Meta(max_length=128)] | None,
    "tool_choice": Literal["none", "auto", "required"] | NamedTool | None,
    "parallel_tool_calls": bool | None,
    "text": TextOptions | None,
    "reasoning": ReasoningOptions | None,
}
