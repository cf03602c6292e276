"""Our attempt's id inside the ids that engines make of it."""

import re
from uuid import UUID

from models_catalog.engines.feeds.entry import MAX_WIRE_ID, LineProblem, UnreadableLine
from portal.kit.ids import BASE32_LENGTH, PREFIXES, decode_base32

_PREFIX = PREFIXES["attempt"]
# What the gateway hands over is `att_…`. vLLM puts `chatcmpl-`, `cmpl-`, `embd-` … before it, numbers the
# inputs `-0`, `-1` and may add eight random hexadecimal digits; SGLang numbers inputs `_0`, `_1`.
_OURS = re.compile(
    rf"(?:[a-z]{{1,16}}-)?{_PREFIX}_([0-7][0-9a-hjkmnp-tv-z]{{{BASE32_LENGTH - 1}}})"
    r"(?:[_-]([0-9]{1,4}))?(?:-[0-9a-f]{8})?"
)
_START = f"{_PREFIX}_"
_LENGTH = len(_START) + BASE32_LENGTH
# The last millisecond of the year 9999: no later moment has a date.
_MAX_MS = 253_402_300_799_999


def read_wire_id(wire_id: str) -> tuple[UUID | None, int]:
    """Our attempt and the number of the input, from 0; (None, 0) for an id that we cannot have made."""
    if len(wire_id) == _LENGTH and wire_id.startswith(_START):
        return _attempt(wire_id[len(_START) :]), 0
    match = _OURS.fullmatch(wire_id)
    if match is None:
        return None, 0
    attempt_id = _attempt(match[1])
    return attempt_id, int(match[2] or 0) if attempt_id is not None else 0


def _attempt(spelled: str) -> UUID | None:
    value = decode_base32(spelled)
    # Version 7 and a time that has a date; by its bits, because a million are asked.
    return value if value is not None and value.int >> 76 & 0xF == 7 and value.int >> 80 <= _MAX_MS else None


def check_id(value: object, field: str, *, max_length: int = MAX_WIRE_ID) -> str:
    """An id as text that a database can hold. Raises UnreadableLine."""
    if value is None:
        raise UnreadableLine(LineProblem.MISSING_FIELD, field)
    if not isinstance(value, str):
        raise UnreadableLine(LineProblem.WRONG_SHAPE, field)
    if not value or len(value) > max_length or not value.isprintable():
        raise UnreadableLine(LineProblem.BAD_ID, field)
    return value
