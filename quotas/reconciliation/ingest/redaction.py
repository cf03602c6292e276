"""What is kept of a pushed body that could not be read: its counts, never a text nor any other number."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from typing import Any, Final

from models_catalog.engines.feeds import FeedOptions
from quotas.models import MAX_QUARANTINED_BODY

# Names that our own schema, OpenAI's usage and spans have for counts, and those that counts stand within.
_COUNTS: Final = frozenset(
    (
        *("part", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"),
        *("input_tokens", "output_tokens"),
        *("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
        *("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
        *("gen_ai.usage.cache_read.input_tokens", "gen_ai.request.max_tokens"),
    )
)
_WITHIN: Final = frozenset({"data", "usage", "attributes"})
_COUNT_FIELDS: Final = frozenset(
    {"part", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"}
)
# Longer ones are no counts, and may be made to say something.
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_MAX_DEPTH: Final = 12
_MAX_ITEMS: Final = 50


def redacted(item: bytes, *, options: FeedOptions) -> str:
    """At most MAX_QUARANTINED_BODY characters: of JSON the known counts that are whole numbers, of anything
    else nothing."""
    try:
        value = json.loads(item)
    except (ValueError, RecursionError):
        return ""
    paths = [path.split(".") for field, path in options.columns.items() if field in _COUNT_FIELDS]
    counts = _COUNTS | {path[-1] for path in paths}
    within = _WITHIN | {step for path in paths for step in path[:-1]}
    kept = _kept(value, counts, within, 0) if isinstance(value, dict) else {}
    return json.dumps(kept)[:MAX_QUARANTINED_BODY] if kept else ""


def _kept(value: dict[str, Any], counts: Set[str], within: Set[str], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict) and name in within and depth < _MAX_DEPTH:
            inner = _kept(item, counts, within, depth + 1)
        elif isinstance(item, list) and name in within:
            inner = _kept(_members_of(item), counts, within, _MAX_DEPTH)
        else:
            inner = {}
            if name in counts and type(item) is int and _WHOLE_NUMBER.fullmatch(str(item)):
                kept[name] = item
        if inner:
            kept[name] = inner
    return kept


def _members_of(attributes: list[Any]) -> dict[str, Any]:
    """Attributes of a span as members, whose whole numbers are texts of digits by the rules of protobuf."""
    members: dict[str, Any] = {}
    for attribute in attributes[:_MAX_ITEMS]:
        if not isinstance(attribute, dict) or not isinstance(attribute.get("key"), str):
            continue
        value = attribute.get("value")
        number = value.get("intValue") if isinstance(value, dict) else None
        if isinstance(number, str) and _WHOLE_NUMBER.fullmatch(number):
            number = int(number)
        members[attribute["key"]] = number
    return members
