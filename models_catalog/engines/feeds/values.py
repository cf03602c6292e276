"""Single values of a record, checked: counts, moments, how a call ended."""

import re
from datetime import UTC, datetime, tzinfo
from math import isfinite

from models_catalog.engines.feeds.entry import MAX_COUNT, Finish, LineProblem, UnreadableLine

# No engine's clock is so wrong that it stands outside of these; a number of the wrong unit does.
_FIRST = datetime(2000, 1, 1, tzinfo=UTC)
_LAST = datetime(2100, 1, 1, tzinfo=UTC)

_FINISHES = {
    "stop": Finish.STOP,
    "eos": Finish.STOP,
    "end_turn": Finish.STOP,
    "tool_calls": Finish.STOP,
    "tool_use": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "abort": Finish.ABORT,
    "aborted": Finish.ABORT,
    "cancel": Finish.ABORT,
    "cancelled": Finish.ABORT,
    "canceled": Finish.ABORT,
    "error": Finish.ERROR,
}
_MAX_DIGITS = 20
_SIGNED = re.compile(r"-[0-9]+(?:\.[0-9]+)?")


def count(value: object, field: str, maximum: int = MAX_COUNT) -> int:
    """A whole number from 0. Raises UnreadableLine."""
    # A bool is an int to isinstance.
    if type(value) is int:
        if 0 <= value <= maximum:
            return value
        raise UnreadableLine(LineProblem.NEGATIVE if value < 0 else LineProblem.TOO_BIG, field)
    if value is None:
        raise UnreadableLine(LineProblem.MISSING_FIELD, field)
    if isinstance(value, float):
        raise UnreadableLine(LineProblem.NEGATIVE if value < 0 else LineProblem.NOT_WHOLE, field)
    raise UnreadableLine(LineProblem.WRONG_SHAPE, field)


def optional_count(value: object, field: str) -> int | None:
    return None if value is None else count(value, field)


def count_in_text(text: str, field: str, maximum: int = MAX_COUNT) -> int:
    """A count spelled in digits, as in CSV or in OTLP's JSON. Raises UnreadableLine."""
    if not (text.isascii() and text.isdigit()):
        if not text:
            raise UnreadableLine(LineProblem.MISSING_FIELD, field)
        raise UnreadableLine(
            LineProblem.NEGATIVE if _SIGNED.fullmatch(text) else LineProblem.NOT_WHOLE, field
        )
    if len(text) > _MAX_DIGITS:
        # Converting long texts takes more than their length.
        raise UnreadableLine(LineProblem.TOO_BIG, field)
    return count(int(text), field, maximum)


def check_parts(
    prompt_tokens: int, cached_tokens: int | None, completion_tokens: int, reasoning_tokens: int | None
) -> None:
    """Raises UnreadableLine when a part is greater than its whole."""
    if cached_tokens is not None and cached_tokens > prompt_tokens:
        raise UnreadableLine(LineProblem.INCONSISTENT, "cached_tokens > prompt_tokens")
    if reasoning_tokens is not None and reasoning_tokens > completion_tokens:
        raise UnreadableLine(LineProblem.INCONSISTENT, "reasoning_tokens > completion_tokens")


def moment_of_unix(value: object, field: str, *, per_second: int = 1) -> datetime:
    """A moment from Unix time in seconds, or in parts of one. Raises UnreadableLine."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableLine(LineProblem.BAD_TIME, field)
    try:
        if not isfinite(value):
            raise UnreadableLine(LineProblem.BAD_TIME, field)
        return _plausible(datetime.fromtimestamp(value / per_second, UTC), field)
    except (OverflowError, OSError, ValueError) as error:
        if isinstance(error, UnreadableLine):
            raise
        # Without its cause, whose message may quote the value.
        raise UnreadableLine(LineProblem.BAD_TIME, field) from None


def moment_of_text(value: object, field: str, zone: tzinfo) -> datetime:
    """A moment in ISO 8601; without an offset it is in `zone`. Raises UnreadableLine."""
    if not isinstance(value, str) or len(value) > 40:
        raise UnreadableLine(LineProblem.BAD_TIME, field)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return _plausible(moment.astimezone(UTC), field)
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnreadableLine):
            raise
        raise UnreadableLine(LineProblem.BAD_TIME, field) from None


def _plausible(moment: datetime, field: str) -> datetime:
    if not _FIRST <= moment < _LAST:
        raise UnreadableLine(LineProblem.BAD_TIME, field)
    return moment


def finish_of(word: object) -> Finish:
    """What the engine's own word for the end of a call means to us."""
    return _FINISHES.get(word.lower(), Finish.UNKNOWN) if isinstance(word, str) else Finish.UNKNOWN
