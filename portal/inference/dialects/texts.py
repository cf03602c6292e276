"""Prompts and inputs that are texts or lists of token ids, one or several."""

from dataclasses import dataclass
from typing import Any

from models_catalog.engines.text_fields import Tokens
from portal.inference.dialects.reading import (
    OVERHEAD_PER_MESSAGE_TOKENS,
    converted,
    estimate,
    text_bound,
)
from portal.inference.errors import bad_request
from portal.inference.snapshot import ModelEntry


@dataclass(frozen=True, slots=True)
class Text:
    """A text or its tokens, with how many tokens it can have at most and has about."""

    value: str | list[int]
    bound_tokens: int
    estimated_tokens: int

    @property
    def beginning(self) -> str:
        return self.value if isinstance(self.value, str) else " ".join(map(str, self.value[:256]))


def read_texts(name: str, value: str | list[Any], *, entry: ModelEntry, limit: int) -> list[Text]:
    """What stands in a field: a text, a list of token ids, or a list of these. Raises CallError 400."""
    parts: list[Any] = [value]
    if isinstance(value, list):
        if not value:
            raise bad_request(f"The field '{name}' is an empty list.", param=name)
        if not isinstance(value[0], int):
            parts = value
    if len(parts) > limit:
        raise bad_request(f"{name} has {len(parts)} entries; {limit} are the most.", param=name)
    return [_text(name, part, entry) for part in parts]


def _text(name: str, part: Any, entry: ModelEntry) -> Text:
    text: str | list[int] = part if isinstance(part, str) else converted(name, part, Tokens)
    if isinstance(text, str):
        bound = text_bound(text)
        estimated = estimate(text, context_tokens=entry.context_tokens)
    else:
        bound = estimated = len(text)
    # What tokenizers put before and behind it.
    bound = min(bound + OVERHEAD_PER_MESSAGE_TOKENS, entry.context_tokens)
    return Text(text, bound, max(1, min(estimated, bound)))
