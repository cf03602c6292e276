"""What is kept of a pushed body that could not be read: its shape and its numbers, never a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from models_catalog.engines.feeds import FeedOptions
from quotas.models import MAX_QUARANTINED_BODY

# Names of our own schema, of OpenAI's usage and of spans. Others may be texts, too.
_KNOWN: Final = frozenset(
    (
        *("specversion", "type", "source", "id", "time", "data", "datacontenttype"),
        *("wire_id", "part", "finish", "finished_at", "event_id", "unit", "usage"),
        *("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"),
        *("input_tokens", "output_tokens"),
        *("traceId", "spanId", "startTimeUnixNano", "endTimeUnixNano", "status", "code"),
        *("attributes", "key", "value", "intValue", "stringValue", "arrayValue", "values"),
    )
)
_TEXT: Final = "…"
_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_MAX_DEPTH: Final = 12
_MAX_ITEMS: Final = 50


def redacted(item: bytes, *, options: FeedOptions) -> str:
    """At most MAX_QUARANTINED_BODY characters: of JSON known names and numbers, of other text its numbers and
    what parts its columns, of anything else nothing."""
    try:
        text = item.decode()
    except UnicodeDecodeError:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        cells = text.strip().split(options.delimiter)[:_MAX_ITEMS]
        return options.delimiter.join(_cell(cell) for cell in cells)[:MAX_QUARANTINED_BODY]
    known = _KNOWN | {step for path in options.columns.values() for step in path.split(".")}
    return json.dumps(_value(value, known, 0), ensure_ascii=False)[:MAX_QUARANTINED_BODY]


def _cell(cell: str) -> str:
    cell = cell.strip()
    return cell if not cell or _NUMBER.fullmatch(cell) else _TEXT


def _value(value: Any, known: Iterable[str], depth: int) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        # Longer ones are no counts, and may be made to say something.
        return value if len(str(value)) <= 30 else _TEXT
    if depth >= _MAX_DEPTH or isinstance(value, str):
        return _TEXT
    if isinstance(value, list):
        return [_value(item, known, depth + 1) for item in value[:_MAX_ITEMS]]
    kept = {name: _value(item, known, depth + 1) for name, item in value.items() if name in known}
    return kept if len(kept) == len(value) else {**kept, _TEXT: len(value) - len(kept)}
