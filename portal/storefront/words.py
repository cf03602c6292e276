"""What the catalog calls abilities, token classes and service tiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy, pgettext_lazy

Text = str | Promise

# The catalog may name others; they are shown as it writes them.
CAPABILITIES: Final[dict[str, tuple[Text, Text]]] = {
    "tools": (gettext_lazy("Tools"), gettext_lazy("Calls functions that you describe to it.")),
    "json_mode": (gettext_lazy("JSON mode"), gettext_lazy("Answers in JSON when asked to.")),
    "json_schema": (
        gettext_lazy("JSON schema"),
        gettext_lazy("Answers in exactly the JSON that your schema describes."),
    ),
    "vision": (gettext_lazy("Images"), gettext_lazy("Reads images besides text.")),
    "reasoning": (
        gettext_lazy("Reasoning"),
        gettext_lazy("Thinks before it answers; the thinking is counted as output."),
    ),
    "embeddings": (gettext_lazy("Embeddings"), gettext_lazy("Turns texts into vectors.")),
    "logprobs": (gettext_lazy("Log probabilities"), gettext_lazy("Says how likely each token was.")),
    "completions": (gettext_lazy("Text completion"), gettext_lazy("Continues a text that is no chat.")),
    "code": (pgettext_lazy("ability", "Code"), gettext_lazy("Trained on programs.")),
    "chinese": (gettext_lazy("Chinese"), gettext_lazy("Trained on much Chinese.")),
}
TOKEN_CLASSES: Final[dict[str, Text]] = {
    "input": gettext_lazy("Input"),
    "cached_input": gettext_lazy("Cached input"),
    "image": gettext_lazy("Images"),
    "output": gettext_lazy("Output"),
    "reasoning": gettext_lazy("Reasoning"),
    "request": gettext_lazy("Request"),
}
SERVICE_TIERS: Final[dict[str, Text]] = {
    "standard": pgettext_lazy("service tier", "Standard"),
    "batch": pgettext_lazy("service tier", "Batch"),
    "reserved": pgettext_lazy("service tier", "Reserved"),
}


@dataclass(frozen=True, slots=True)
class Capability:
    """An ability by the catalog's name (value) and in words; text is empty for names without words."""

    value: str
    name: Text
    text: Text


def capability(value: str) -> Capability:
    name, text = CAPABILITIES.get(value, (value.replace("_", " "), ""))
    return Capability(value, name, text)
