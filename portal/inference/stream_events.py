"""Reads the events of a backend's stream as far as metering needs it; their bytes stay as they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from models_catalog.engines import EngineAdapter
from portal.inference.public_name import PublicName
from portal.inference.upstream_answers import UNREADABLE, read_plain_answer
from portal.kit.sse import event_data

# An event that delivers something of a chat's answer: text, reasoning, or a tool call's arguments. Quotes
# inside JSON strings are escaped, so text cannot look like this.
CHAT_CONTENT = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|refusal)":\s?"(?!")')
_DONE = re.compile(rb"^data:\s?\[DONE\]")
# In whatever form: a member of the object, or an object that is one.
_ERROR = re.compile(rb'"error":\s?[{"]|"object":\s?"error"|^event:\s?error')
_NO_CHOICES = re.compile(rb'"choices":\s?\[\s?\]')


@dataclass(slots=True)
class EventRun:
    """Events that arrived together. `outgoing` are for the client; has_failed: the backend said that it
    could not go on, and nothing after that counts. `usage_event` is the newest with counts, and
    `opening_usage` the one that began to report, where both are needed."""

    outgoing: list[bytes] = field(default_factory=list)
    usage_event: bytes | None = None
    opening_usage: bytes | None = None
    content_events: int = 0
    is_done: bool = False
    has_failed: bool = False


def read_run(
    events: Sequence[bytes],
    *,
    engine: EngineAdapter,
    include_usage: bool,
    name: PublicName | None = None,
    content: re.Pattern[bytes] = CHAT_CONTENT,
) -> EventRun:
    """Sort a run of a chat's or completion's events. The event that only reports usage is left out unless it
    was asked for, and the backend's own error event always: its words are not for clients."""
    run = EventRun()
    for event in events:
        # Looking for a plain word costs a tenth of a pattern, and nearly every event is settled by that.
        if b"error" in event and _ERROR.search(event):
            run.has_failed = True
            break
        if engine.reports_usage(event):
            run.usage_event = event
        if (b'"content":"' in event and b'"content":""' not in event) or content.search(event):
            run.content_events += 1
        elif not include_usage and b'"usage"' in event and _NO_CHOICES.search(event):
            continue
        elif _DONE.match(event):
            run.is_done = True
        run.outgoing.append(name.in_event(event) if name is not None else event)
    return run


def read_opening(event: bytes) -> str | None:
    """The backend's id in the first event of an answer; None for an event without data, such as a comment.

    Errors: msgspec.DecodeError for anything that is not a part of an answer.
    """
    data = event_data(event)
    if data is None:
        return None
    try:
        return read_plain_answer(data).wire_id
    except UNREADABLE as error:
        raise msgspec.DecodeError("the stream does not begin with an answer") from error
