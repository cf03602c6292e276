"""What all lines have in common: a length, an encoding, and JSON that is decoded without surprises."""

from typing import TypeVar

import msgspec

from models_catalog.engines.feeds.entry import MAX_LINE_BYTES, LineProblem, UnreadableLine

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def line_of(line: bytes) -> bytes:
    """The line without its end and without a byte order mark; empty when there is nothing on it.

    Raises UnreadableLine for a line that is too long to be looked at.
    """
    if len(line) > MAX_LINE_BYTES:
        raise UnreadableLine(LineProblem.TOO_LONG)
    return line.strip(b" \t\r\n").removeprefix(_BYTE_ORDER_MARK)


def decode(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    """Raises UnreadableLine, whose detail says nothing: messages of the decoder may quote what they read."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise UnreadableLine(LineProblem.WRONG_SHAPE) from None
    except msgspec.DecodeError:
        raise UnreadableLine(LineProblem.NOT_JSON) from None
    except UnicodeDecodeError:
        raise UnreadableLine(LineProblem.NOT_UTF8) from None
    except RecursionError:
        raise UnreadableLine(LineProblem.TOO_DEEP) from None
