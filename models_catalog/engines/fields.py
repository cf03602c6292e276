"""The fields that a chat request may carry, with their types. Everything else is refused by name.

Types are msgspec types: converting a value to its type is the validation, and the error says where
in the value it went wrong.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_CAP_TOKENS = 2**31 - 1

Flag = bool
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Cap = Annotated[int, Meta(ge=1, le=MAX_CAP_TOKENS)]


class TextPart(Struct, tag_field="type", tag="text"):
    text: str


class ImageUrl(Struct, omit_defaults=True):
    url: str
    detail: Literal["auto", "low", "high"] | UnsetType = UNSET


class ImagePart(Struct, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class CalledFunction(Struct):
    name: Name
    arguments: str


class ToolCall(Struct, tag_field="type", tag="function"):
    id: Annotated[str, Meta(max_length=256)]
    function: CalledFunction


class SystemMessage(Struct, tag_field="role", tag="system", omit_defaults=True):
    content: str | list[TextPart]
    name: Name | UnsetType = UNSET


class DeveloperMessage(Struct, tag_field="role", tag="developer", omit_defaults=True):
    content: str | list[TextPart]
    name: Name | UnsetType = UNSET


class UserMessage(Struct, tag_field="role", tag="user", omit_defaults=True):
    content: str | list[TextPart | ImagePart]
    name: Name | UnsetType = UNSET


class AssistantMessage(Struct, tag_field="role", tag="assistant", omit_defaults=True):
    content: str | list[TextPart] | None = None
    name: Name | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ToolMessage(Struct, tag_field="role", tag="tool"):
    content: str | list[TextPart]
    tool_call_id: Annotated[str, Meta(max_length=256)]


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
Messages = Annotated[list[Message], Meta(min_length=1, max_length=4096)]


class FunctionSpec(Struct, omit_defaults=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Annotated[str, Meta(max_length=16384)] | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType | None = UNSET


class Tool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    function: FunctionSpec


class NamedFunction(Struct):
    name: Name


class ToolChoice(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    function: NamedFunction


class TextFormat(Struct, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(Struct, tag_field="type", tag="json_object"):
    pass


class JsonSchema(Struct, omit_defaults=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    schema: dict[str, Any] | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=16384)] | UnsetType = UNSET
    strict: bool | UnsetType | None = UNSET


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: JsonSchema


class StreamOptions(Struct, forbid_unknown_fields=True, omit_defaults=True):
    include_usage: bool = False


MODEL_NAME_CHARS = 200
MODEL_NAME = Annotated[str, Meta(min_length=1, max_length=MODEL_NAME_CHARS)]

ServiceTier = Literal["auto", "default", "standard"]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Choices = Annotated[int, Meta(ge=1, le=128)]
User = Annotated[str, Meta(max_length=512)]
Stop = (
    Annotated[str, Meta(max_length=1024)]
    | Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(max_length=16)]
)
LogitBias = Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
TopK = Annotated[int, Meta(ge=-1, le=100_000)]

# What the gateway itself reads and decides about: never passed on as the client wrote it.
GATEWAY_FIELDS: Mapping[str, Any] = {
    "model": MODEL_NAME,
    "messages": Messages,
    "stream": bool | None,
    "stream_options": StreamOptions | None,
    "max_tokens": Cap | None,
    "max_completion_tokens": Cap | None,
    "n": Choices | None,
    "service_tier": ServiceTier | None,
    "user": User | None,
    "metadata": dict[str, str] | None,
    "store": Literal[False] | None,
    "modalities": list[Literal["text"]] | None,
}

# Caps, ids, priorities, adapters, processors, prompts, templates and what else an engine would believe before
# it believes us: nobody's to send, not even when a catalog lists it among a model's further fields, nor as a
# member of such a field. A template is a program, and makes prompts as long as it likes.
RESERVED_FIELDS = frozenset(
    {
        "audio_data",
        "best_of",
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "cache_prompt",
        "cache_salt",
        "chat_template",
        "conversation",
        "custom_logit_processor",
        "data_parallel_rank",
        "echo",
        "extra_body",
        "id_slot",
        "ignore_eos",
        "image_data",
        "input",
        "input_embeds",
        "input_ids",
        "kv_transfer_params",
        "lora",
        "lora_path",
        "logits_processors",
        "max_new_tokens",
        "max_output_tokens",
        "n_cmpl",
        "n_predict",
        "priority",
        "prompt",
        "prompt_embeds",
        "request_id",
        "return_progress",
        "rid",
        "sampling_params",
        "session_params",
        "suffix",
        "timings_per_token",
        "tokenize",
        "tokenizer",
        "use_beam_search",
        "video_data",
        "vllm_xargs",
        *GATEWAY_FIELDS,
    }
)

# What every engine of ours understands in the same way: passed on as validated.
COMMON_FIELDS: Mapping[str, Any] = {
    "temperature": Temperature | None,
    "top_p": Probability | None,
    "presence_penalty": Penalty | None,
    "frequency_penalty": Penalty | None,
    "seed": Seed | None,
    "stop": Stop | None,
    "logit_bias": LogitBias | None,
    "logprobs": bool | None,
    "top_logprobs": Annotated[int, Meta(ge=0, le=20)] | None,
    "tools": Annotated[list[Tool], Meta(max_length=128)] | None,
    "tool_choice": Literal["none", "auto", "required"] | ToolChoice | None,
    "parallel_tool_calls": bool | None,
    "response_format": TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
    "reasoning_effort": Literal["none", "minimal", "low", "medium", "high"] | None,
    "top_k": TopK | None,
    "min_p": Probability | None,
}
