"""Lines of a stream, from an offset on, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BufferedIOBase
from typing import Final

from models_catalog.engines.feeds import MAX_LINE_BYTES

BLOCK_BYTES: Final = 2**20
# Of the bytes before a cursor, which tell whether what has been read is still there.
MARK_BYTES: Final = 512
# A line without an end is passed over in pieces, so that reading gets on.
MAX_PIECE_BYTES: Final = 64 * 2**20


@dataclass(slots=True)
class LongLine:
    """A line, or a piece of one, that is too long to be looked at. `length` includes its end."""

    length: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)

    def pass_over(self, part: bytes) -> None:
        self.length += len(part)
        self.digest.update(part)


def mark_of(before: bytes) -> str:
    """The digest of the last bytes before an offset."""
    return blake2b(before[-MARK_BYTES:], digest_size=16).hexdigest()


class Lines:
    """Iterates over whole lines with their ends, and LongLines. The stream stands at `offset`; `before` are
    the bytes in front of it, as far as a mark needs them.

    What stands behind the last line end is a line only when `is_closed`; else whoever writes is not done with
    it. `has_ended` says that the end of the stream was seen.
    """

    def __init__(self, stream: BufferedIOBase, *, offset: int, before: bytes, is_closed: bool) -> None:
        self._stream = stream
        self.is_closed = is_closed
        self._window = before[-MARK_BYTES:]
        # Of the window's end; of its beginning is told by its length.
        self._read_to = offset
        self.has_ended = False
        # The last line has no end yet.
        self.is_cut = False
        # Set by whoever finds that the rest cannot be unpacked.
        self.is_broken = False

    def mark_at(self, offset: int) -> str:
        """The mark of a line's end; lines that were iterated over just now have one."""
        end = offset - (self._read_to - len(self._window))
        return mark_of(self._window[max(0, end - MARK_BYTES) : end])

    def __iter__(self) -> Iterator[bytes | LongLine]:
        carry = b""
        while block := self._next_block(carry):
            pieces = (carry + block).split(b"\n")
            carry = pieces.pop()
            for piece in pieces:
                if len(piece) < MAX_LINE_BYTES:
                    yield piece + b"\n"
                else:
                    yield _long(piece + b"\n")
            if len(carry) > MAX_LINE_BYTES:
                yield from self._pass_over(carry)
                carry = b""
        if carry and self.is_closed:
            yield carry
        elif carry:
            self.is_cut = True

    def _next_block(self, carry: bytes) -> bytes:
        # What is there: the last of a broken archive, and what a pipe has by now.
        block = self._stream.read1(BLOCK_BYTES)
        if not block:
            self.has_ended = True
            return b""
        keep = MARK_BYTES + len(carry)
        self._window = self._window[-keep:] + block
        self._read_to += len(block)
        return block

    def _pass_over(self, begun: bytes) -> Iterator[LongLine]:
        """The rest of a line that is too long. What follows it in the last block is read again."""
        long = _long(begun)
        while True:
            block = self._stream.readline(BLOCK_BYTES)
            if not block:
                self.has_ended = True
                if self.is_closed:
                    yield long
                else:
                    self.is_cut = True
                return
            self._window = self._window[-MARK_BYTES:] + block
            self._read_to += len(block)
            long.pass_over(block)
            if block.endswith(b"\n"):
                yield long
                return
            if long.length >= MAX_PIECE_BYTES:
                yield long
                long = LongLine()


def _long(begun: bytes) -> LongLine:
    long = LongLine()
    long.pass_over(begun)
    return long
