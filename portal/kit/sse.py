"""Server-sent events as bytes: cut a stream into events without changing a byte, and read their data.

Lines end in LF, CRLF or CR, also mixed. An event reaches up to and including its blank line; a blank line
without anything before it is an event of its own. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from typing import Final

# Atomic groups: a CRLF is one line end and never two.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# The longest end of an event is CRLF CRLF, of which up to three bytes may be there already.
_LONGEST_PARTIAL_END: Final = 3
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event has more bytes than allowed. `events` are the complete ones before it in the same chunk."""

    def __init__(self, max_event_bytes: int, events: list[bytes]) -> None:
        super().__init__(f"an event of the stream has more than {max_event_bytes} bytes")
        self.events = events


class EventSplitter:
    """Cuts a stream into events, however the stream is cut into chunks.

    All events and the tail together are the input, byte for byte. When a chunk ends in a CR that may be half
    of a CRLF, the event is held back until the next byte or, at the end of the stream, stays in the tail.
    After EventTooLarge the splitter must not be fed again.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes, with their blank lines. Raises EventTooLarge."""
        if (
            not self._buffer
            and chunk.find(b"\n\n") == len(chunk) - 2 >= 1
            and not chunk.startswith(b"\n")
            and b"\r" not in chunk
        ):
            # One whole event in one chunk: what engines send nearly always.
            if len(chunk) > self._max_event_bytes:
                raise EventTooLarge(self._max_event_bytes, [])
            return [bytes(chunk)]
        self._buffer += chunk
        return self._split()

    def tail(self) -> bytes:
        """What follows the last complete event. It stays where it is."""
        return bytes(self._buffer)

    def _split(self) -> list[bytes]:
        buffer = self._buffer
        events: list[bytes] = []
        start = 0
        scan_from = self._scanned
        while (end := self._event_end(start, max(start, scan_from))) is not None:
            if end - start > self._max_event_bytes:
                raise EventTooLarge(self._max_event_bytes, events)
            events.append(bytes(buffer[start:end]))
            start = end
        del buffer[:start]
        if len(buffer) > self._max_event_bytes:
            raise EventTooLarge(self._max_event_bytes, events)
        self._scanned = max(0, len(buffer) - _LONGEST_PARTIAL_END)
        return events

    def _event_end(self, start: int, scan_from: int) -> int | None:
        """Where the event that begins at `start` ends, if that is certain."""
        buffer = self._buffer
        match = _LINE_END.match(buffer, start) or _EVENT_END.search(buffer, scan_from)
        if match is None:
            return None
        end = match.end()
        if end == len(buffer) and buffer[end - 1] == 0x0D:
            return None
        return end


def event_data(event: bytes) -> bytes | None:
    """The data of one event: the values of its data lines, joined by LF; None when it has no data line.

    Comments and other fields are left out. A byte order mark is skipped, as at the beginning of a stream.
    """
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and b"\r" not in event:
        value = event[6:-2]
        if b"\n" not in value:
            return value
    lines = _LINE_END.split(event.removeprefix(_BYTE_ORDER_MARK))
    values = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if name == b"data":
            values.append(value.removeprefix(b" ") if colon else b"")
    return b"\n".join(values) if values else None
