"""Writes the records of one feed into its files, and does to them what the dice say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from devstack.engines.feeds.faults import RECORD_FAULTS, Dice, FeedFaults, RecordFault
from devstack.engines.feeds.files import FeedFile
from devstack.engines.feeds.injected import Injections
from devstack.engines.feeds.lines import LineFormat
from devstack.engines.feeds.told import Told

_LINES_A_WRITE = 512
_NO_TEXT = b"\x00\xff\xfe{ nothing that means anything"


class LineFeed:
    """A feed of lines. The simulator and the bulk writer both write through it."""

    def __init__(self, form: LineFormat, directory: Path, faults: FeedFaults, injections: Injections) -> None:
        """Raises OSError when the folder cannot be made."""
        self.form = form
        self.file = FeedFile(directory, form)
        self.dice: Dice[RecordFault] = Dice(faults, RECORD_FAULTS, form.name)
        self._injections = injections
        self._forced: list[RecordFault] = []
        if faults.clock_skew_s:
            injections.add("clock_skew", feed=form.name, seconds=faults.clock_skew_s)

    def force(self, fault: RecordFault) -> None:
        """The next record meets this fault, whatever the dice say."""
        self._forced.append(fault)

    def open_call(self, wire_ids: tuple[str, ...], told: Told) -> None:
        """A call begins. No fault befalls such lines: nobody needs them."""
        opening = self.form.opening(wire_ids, told)
        if opening is not None:
            self.file.write(opening + b"\n", told.received_unix)

    def tell(self, told: Told, *, spared: bool = False) -> None:
        """Writes a record. One that is spared moves the dice all the same."""
        line = self.form.line(told) + b"\n"
        fault = self.dice.roll()
        if self._forced and not spared:
            fault = self._forced.pop(0)
        if fault is None or spared:
            self.file.write(line, told.finished_unix)
        else:
            self.file.open(told.finished_unix)
            self.strike(fault, line, told)

    @property
    def is_open(self) -> bool:
        """Whether something was written."""
        return self.file.is_open

    def tell_all(self, records: Iterable[Told]) -> None:
        """As `tell` for one after the other, with fewer writes, all under the hour of the first one."""
        make, draw, total = self.form.line, self.dice.draw, self.dice.total
        pending: list[bytes] = []
        for told in records:
            if not self.file.is_open:
                self.file.open(told.finished_unix)
            line = make(told)
            fault = self.dice.fault_of(drawn) if (drawn := draw()) < total else None
            if fault is not None:
                self._write_all(pending)
                self.strike(fault, line + b"\n", told)
                continue
            pending.append(line)
            if len(pending) == _LINES_A_WRITE:
                self._write_all(pending)
        self._write_all(pending)

    def _write_all(self, lines: list[bytes]) -> None:
        if lines:
            lines.append(b"")
            self.file.append(b"\n".join(lines))
            lines.clear()

    def strike(self, fault: RecordFault, line: bytes, told: Told) -> None:
        """Writes a line with one fault to the open file, and books it."""
        details: dict[str, str | int | float] = {}
        name = self.file.path.name
        match fault:
            case "lost":
                pass
            case "doubled":
                self.file.append(line + line)
            case "cut":
                details["kept_bytes"] = kept = self._middle(line)
                self.file.append(line[:kept] + b"\n")
            case "garbage":
                details["kind"], garbage = self._garbage(told)
                self.file.append(garbage + b"\n" + line)
            case "copied":
                self.file.append(line)
                details["aside"] = self.file.copy()
            case "rotate":
                details["aside"] = self.file.rotate()
                self.file.append(line)
            case "rotate_mid_line":
                details["kept_bytes"] = kept = self._middle(line)
                self.file.append(line[:kept])
                details["aside"] = self.file.rotate(with_header=False)
                self.file.append(line[kept:])
            case "truncate":
                details["aside"] = self.file.truncate()
                self.file.append(line)
        self._injections.add(fault, feed=self.form.name, wire_id=told.wire_id, file=name, **details)

    def _middle(self, line: bytes) -> int:
        """A place well inside of a line."""
        return self.dice.details.randrange(len(line) // 4, len(line) * 3 // 4)

    def _garbage(self, told: Told) -> tuple[str, bytes]:
        kind = self.dice.details.choice(("no_text", "half", "negative"))
        if kind == "no_text":
            return kind, _NO_TEXT
        line = self.form.line(negative(told, self.dice.details.getrandbits(64)))
        return kind, line[: len(line) // 3] if kind == "half" else line

    def close(self) -> None:
        """May be repeated."""
        self.file.close()


def negative(told: Told, number: int) -> Told:
    """A record that cannot be, of a call that there was none of."""
    return msgspec.structs.replace(
        told, wire_id=f"sim-garbage-{number:016x}", prompt_tokens=-1 - number % 1000
    )
