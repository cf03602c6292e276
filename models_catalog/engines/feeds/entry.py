"""What one record of a usage feed says of one call, and why a record could not be read."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from msgspec import Struct

# Counts fit a PostgreSQL integer.
MAX_COUNT = 2**31 - 1
MAX_PART = 9_999
MAX_LINE_BYTES = 2**20
# In characters. An id that is longer is refused: cut short, two could become one.
MAX_WIRE_ID = 200
MAX_EVENT_ID = 400


class Finish(StrEnum):
    """How the engine says that a call ended. STOP and LENGTH are whole answers."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    ABORT = "ABORT"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"


class FeedEntry(Struct, frozen=True):
    """One call, or one of its inputs, as its engine counted it.

    wire_id: the id by which the engine knows the call, as it stands in the feed. attempt_id: our attempt,
    where the engine passed its id on; None for a call that is not known to be ours. part: which of several
    inputs, from 0. prompt_tokens includes cached ones, completion_tokens includes reasoning; cached_tokens
    and reasoning_tokens are None where the feed does not tell. finished_at is aware, or None.
    event_id: the source's own id of the record, or "".
    """

    wire_id: str
    attempt_id: UUID | None
    part: int
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    reasoning_tokens: int | None
    finish: Finish
    finished_at: datetime | None
    event_id: str


class LineProblem(StrEnum):
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_PROTOBUF = "not_protobuf"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    # Valid in its encoding, but not what this format has at this place.
    WRONG_SHAPE = "wrong_shape"
    MISSING_FIELD = "missing_field"
    NEGATIVE = "negative"
    NOT_WHOLE = "not_whole"
    TOO_BIG = "too_big"
    # A part that is greater than its whole: cached > prompt, reasoning > completion.
    INCONSISTENT = "inconsistent"
    WRONG_UNIT = "wrong_unit"
    BAD_TIME = "bad_time"
    BAD_ID = "bad_id"
    # An event of a type that is not ours.
    UNKNOWN_TYPE = "unknown_type"


class UnreadableLine(ValueError):
    """A record that cannot be read. `detail` names the field and never holds anything of the record itself,
    which may carry a tenant's prompt."""

    def __init__(self, reason: LineProblem, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class UnreadableItem(Struct, frozen=True):
    """A record inside a pushed body that cannot be read; its neighbours are. index: its place in the body,
    from 0. digest: SHA-256 of its `length_bytes` bytes, for recognizing it without keeping it."""

    index: int
    reason: LineProblem
    detail: str
    length_bytes: int
    digest: bytes


class LineReader(Protocol):
    def read(self, line: bytes) -> FeedEntry | None:
        """The entry of one line, with or without its line end; None for a line that says nothing about a
        finished call. Raises UnreadableLine, and nothing else."""
        ...


class BodyReader(Protocol):
    def read_body(self, body: bytes, content_type: str) -> Sequence[FeedEntry | UnreadableItem]:
        """All that a pushed body says, in its order; what is none of our business is left out. `body` is
        unpacked already. Raises UnreadableLine when the body as a whole is no such thing, so that nothing in
        it was read, and UnknownContentType."""
        ...


class UnknownContentType(ValueError):
    """The format does not come with this content type. The message names those that it has."""


class NoLineFormat(ValueError):
    """The format comes as whole bodies only; no file of lines is in it."""
