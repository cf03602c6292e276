"""The fields of completions and embeddings, with their types, as `fields` has those of chats."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from models_catalog.engines.fields import (
    MODEL_NAME,
    Cap,
    Choices,
    LogitBias,
    Penalty,
    Probability,
    Seed,
    ServiceTier,
    Stop,
    StreamOptions,
    Temperature,
    TopK,
    User,
)

# A vocabulary with more entries than this does not exist yet.
TokenId = Annotated[int, Meta(ge=0, lt=2**24)]
Tokens = Annotated[list[TokenId], Meta(min_length=1)]
MAX_INPUTS = 2048

# Texts or lists of token ids; which of them a list is shows in its first entry.
COMPLETIONS_OURS: Mapping[str, Any] = {
    "model": MODEL_NAME,
    "prompt": str | list[Any],
    "stream": bool | None,
    "stream_options": StreamOptions | None,
    "max_tokens": Cap | None,
    "n": Choices | None,
    "service_tier": ServiceTier | None,
    "user": User | None,
    # Legacy clients send what they mean to leave off.
    "echo": Literal[False] | None,
    "best_of": Literal[1] | None,
    "suffix": Literal[""] | None,
}
COMPLETIONS_COMMON: Mapping[str, Any] = {
    "temperature": Temperature | None,
    "top_p": Probability | None,
    "presence_penalty": Penalty | None,
    "frequency_penalty": Penalty | None,
    "seed": Seed | None,
    "stop": Stop | None,
    "logit_bias": LogitBias | None,
    "logprobs": Annotated[int, Meta(ge=0, le=20)] | None,
    "top_k": TopK | None,
    "min_p": Probability | None,
}

EMBEDDINGS_OURS: Mapping[str, Any] = {
    "model": MODEL_NAME,
    "input": str | list[Any],
    "user": User | None,
}
EMBEDDINGS_COMMON: Mapping[str, Any] = {
    "encoding_format": Literal["float", "base64"] | None,
    "dimensions": Annotated[int, Meta(ge=1, le=65_536)] | None,
}
