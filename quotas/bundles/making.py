"""Writing a bundle: one snapshot, read page by page into a file, added up, held against the books, signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final
from uuid import UUID

from portal.kit.ids import PREFIXES, public_id
from portal.kit.signing import SigningKey
from quotas.bundles.archive import CORRECTIONS, PRICES, USAGE, Archive
from quotas.bundles.certificate import Certificate
from quotas.bundles.lines import (
    COLUMNS,
    CORRECTION_COLUMNS,
    LateTotals,
    LineWriter,
    Row,
    Totals,
    moment_text,
)
from quotas.bundles.snapshot import HourlySums, Snapshot, open_snapshot

# More is a matter for several bundles: the file stays below what a plain ZIP can hold.
MAX_LINES: Final = 4_000_000
_PRICE: Final = COLUMNS.index("price")
_ADMITTED: Final = COLUMNS.index("admitted_at")
_REVISION: Final = COLUMNS.index("revision")
_RECORDED: Final = COLUMNS.index("recorded_at")
_COST: Final = COLUMNS.index("cost_nanos")
_CHARGED: Final = COLUMNS.index("charged_nanos")

Progress = Callable[[int, int], None]
"""Takes how many lines are written and how many are expected. What it raises stops the writing."""


class TooManyLines(Exception):
    """The period has more than MAX_LINES calls."""


class LinesDiffer(Exception):
    """The lines do not add up to the hourly sums of the same moment: the books are wrong, and nothing is
    signed."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made. issuer: the address of the installation."""

    bundle_id: UUID
    tenant_id: UUID
    currency: str
    from_at: datetime
    to_at: datetime
    issuer: str


@dataclass(frozen=True, slots=True)
class Made:
    """What was. charged_nanos: the total."""

    made_at: datetime
    lines: int
    charged_nanos: int


def write_bundle(
    *, file: IO[bytes], order: Order, proof: Certificate, key: SigningKey, progress: Progress
) -> Made:
    """Write the bundle into a file that can be read and sought.

    Outside every transaction of the tenant role; progress may write as another role. Errors: TooManyLines,
    LinesDiffer.
    """
    period = {"from_at": order.from_at, "to_at": order.to_at}
    with Archive(file) as archive, open_snapshot(tenant_id=order.tenant_id, **period) as snapshot:
        writing = _Writing(snapshot, archive, progress)
        writing.usage()
        writing.corrections()
        writing.prices()
        facts = {
            "bundle": public_id(PREFIXES["bundle"], order.bundle_id),
            "issuer": order.issuer,
            "organization": {
                "id": public_id(PREFIXES["organization"], order.tenant_id),
                "name": snapshot.organization,
            },
            "currency": order.currency,
            "period": {"from": moment_text(order.from_at), "to": moment_text(order.to_at)},
            "made_at": moment_text(snapshot.made_at),
            "certificate": proof.as_json(),
            "totals": writing.totals.as_json(),
            "late_corrections": writing.late.as_json(),
        }
        archive.seal(facts, key)
        return Made(snapshot.made_at, writing.totals.lines, writing.totals.sum_of("charged_nanos"))


class _Writing:
    """One bundle on its way."""

    def __init__(self, snapshot: Snapshot, archive: Archive, progress: Progress) -> None:
        self._snapshot = snapshot
        self._archive = archive
        self._progress = progress
        self._writer = LineWriter()
        self._versions: set[UUID] = set()
        self._expected = 0
        self.totals = Totals()
        self.late = LateTotals()

    def usage(self) -> None:
        expected = self._snapshot.hourly_sums()
        if expected.calls > MAX_LINES:
            raise TooManyLines
        self._expected = expected.calls
        self._progress(0, expected.calls)
        with self._archive.entry(USAGE) as entry:
            entry.write(self._writer.head(COLUMNS))
            for page in self._snapshot.usage_pages():
                entry.write("".join([self._usage_line(row) for row in page]))
                if self.totals.lines > MAX_LINES:
                    raise TooManyLines
                self._progress(self.totals.lines, expected.calls)
        found = HourlySums(self.totals.calls, *(self.totals.sum_of(name) for name in _HELD_AGAINST))
        if found != expected:
            raise LinesDiffer

    def corrections(self) -> None:
        """Every revision of calls of the period that were set right, then of earlier ones about which
        something was posted in it."""
        with self._archive.entry(CORRECTIONS) as entry:
            entry.write(self._writer.head(CORRECTION_COLUMNS))
            for ids in (self._snapshot.corrected_calls(), self._snapshot.late_calls()):
                for page in self._snapshot.revisions_of(ids):
                    before: Row | None = None
                    for row, cause in page:
                        self._versions.add(row[_PRICE])
                        entry.write(self._writer.line(row, cause))
                        self._count_late(row, before if before and before[0] == row[0] else None, cause)
                        before = row
                    self._progress(self.totals.lines, self._expected)

    def prices(self) -> None:
        with self._archive.entry(PRICES) as entry:
            prices: list[dict[str, Any]] = self._snapshot.prices(self._versions)
            entry.write(json.dumps({"prices": prices}, ensure_ascii=False, indent=1) + "\n")

    def _usage_line(self, row: Row) -> str:
        self.totals.add(row)
        self._versions.add(row[_PRICE])
        return self._writer.line(row)

    def _count_late(self, row: Row, before: Row | None, cause: str) -> None:
        snapshot = self._snapshot
        if row[_ADMITTED] >= snapshot.from_at or not snapshot.from_at <= row[_RECORDED] < snapshot.to_at:
            return
        if row[_REVISION] > 1 or cause:
            self.late.add(
                row[0],
                cost_nanos=row[_COST] - (before[_COST] if before else 0),
                charged_nanos=row[_CHARGED] - (before[_CHARGED] if before else 0),
            )


# What both lines and hourly sums know, in the order of HourlySums behind the calls.
_HELD_AGAINST: Final = ("prompt_tokens", "completion_tokens", "cost_nanos", "charged_nanos")
