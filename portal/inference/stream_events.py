"""Reads the events of a backend's stream as far as metering needs it; their bytes stay as they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from models_catalog.engines import EngineAdapter
from portal.inference.upstream_answers import UNREADABLE, read_plain_answer
from portal.kit.sse import event_data

# An event that delivers something of the answer: text, reasoning, or a tool call's arguments. Quotes inside
# JSON strings are escaped, so text cannot look like this.
_CONTENT = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|refusal)":\s?"(?!")')
_DONE = re.compile(rb"^data:\s?\[DONE\]")
# In whatever form: a member of the object, or an object that is one.
_ERROR = re.compile(rb'"error":\s?[{"]|"object":\s?"error"|^event:\s?error')
_NO_CHOICES = re.compile(rb'"choices":\s?\[\s?\]')


@dataclass(slots=True)
class EventRun:
    """Events that arrived together. `outgoing` are for the client; has_failed: the backend said that it
    could not go on, and nothing after that counts."""

    outgoing: list[bytes] = field(default_factory=list)
    usage_event: bytes | None = None
    content_events: int = 0
    is_done: bool = False
    has_failed: bool = False


def read_run(events: Sequence[bytes], *, engine: EngineAdapter, include_usage: bool) -> EventRun:
    """Sort a run of events. The event that only reports usage is left out unless it was asked for, and the
    backend's own error event always: its words are not for clients."""
    run = EventRun()
    for event in events:
        if _ERROR.search(event):
            run.has_failed = True
            break
        if engine.reports_usage(event):
            run.usage_event = event
        if not include_usage and b'"usage"' in event and _NO_CHOICES.search(event):
            continue
        if _CONTENT.search(event):
            run.content_events += 1
        elif _DONE.match(event):
            run.is_done = True
        run.outgoing.append(event)
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
