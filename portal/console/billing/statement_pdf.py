"""The statement of account as a PDF, for whoever files it: head, sums, and the transactions line by line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, override, pgettext
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfgen.canvas import Canvas

from portal.kit.money import format_nanos
from portal.pages import words
from portal.pages.receipts import correction_text
from quotas.ledger.queries import MAX_PAGE_ROWS, StatementPage, StatementRow, StatementSummary, statement_page
from quotas.models import TransferKind
from tenants.scope import tenant_scope

MAX_LINES: Final = 5_000
"""Of one file: about a hundred pages. The sums are always those of the whole period."""

LATIN: Final = "Helvetica"
LATIN_BOLD: Final = "Helvetica-Bold"
# Readers bring this face with their Asian fonts; the file only names it.
CHINESE: Final = "STSong-Light"
DECIMALS: Final = 9
PIECE_BYTES: Final = 64 * 1024
_SPOOL_BYTES: Final = 2 * 2**20
_LEFT: Final = 18 * mm
_RIGHT: Final = A4[0] - 18 * mm
_TOP: Final = A4[1] - 20 * mm
_BOTTOM: Final = 20 * mm
_LINE: Final = 4.6 * mm
_KIND_AT: Final = _LEFT + 32 * mm
_WHAT_AT: Final = _KIND_AT + 31 * mm
_AMOUNT_AT: Final = _RIGHT - 36 * mm

registerFont(UnicodeCIDFont(CHINESE))


@dataclass(frozen=True, slots=True)
class StatementHead:
    """What a statement is of. first_day, last_day: both included, in UTC. language: of the words in it."""

    organization: str
    organization_id: str
    first_day: str
    last_day: str
    issued_at: datetime
    language: str


def iter_statement_pdf(
    *,
    tenant_id: UUID,
    head: StatementHead,
    from_at: datetime,
    to_at: datetime,
    kinds: Sequence[str] = (),
) -> Iterator[bytes]:
    """The file in pieces. It is made when the first piece is asked for, outside the caller's scope: each page
    of the statement is read in a scope of its own, so that no transaction waits for the drawing.

    Errors: StatementNotFound with the first piece.
    """
    with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
        with override(head.language):
            _Paper(file, head, kinds).write(_pages(tenant_id, from_at, to_at, kinds))
        file.seek(0)
        while piece := file.read(PIECE_BYTES):
            yield piece


def _pages(
    tenant_id: UUID, from_at: datetime, to_at: datetime, kinds: Sequence[str]
) -> Iterator[StatementPage]:
    after = None
    while True:
        with tenant_scope(tenant_id):
            page = statement_page(
                tenant_id=tenant_id,
                from_at=from_at,
                to_at=to_at,
                kinds=kinds,
                after=after,
                limit=MAX_PAGE_ROWS,
            )
        yield page
        after = page.next
        if after is None:
            return


class _Paper:
    """A canvas, and how far down the page it is written on."""

    def __init__(self, file: IO[bytes], head: StatementHead, kinds: Sequence[str]) -> None:
        self._head = head
        self._kinds = kinds
        self._canvas = Canvas(file, pagesize=A4, pageCompression=1)
        self._canvas.setTitle(f"{_('Statement of account')} {head.first_day} - {head.last_day}")
        self._canvas.setAuthor(printable(head.organization))
        self._number = 1
        self._y = _TOP

    def write(self, pages: Iterator[StatementPage]) -> None:
        first = next(pages)
        summary = first.summary
        assert summary is not None, "the first page of a statement adds it up"
        self._write_head(summary)
        self._write_sums(summary)
        self._y -= 2 * _LINE
        self._heading(_("Transactions"))
        self._columns()
        written = self._write_rows(first.rows, summary.currency, 0)
        for page in pages:
            if written >= MAX_LINES:
                break
            written = self._write_rows(page.rows, summary.currency, written)
        self._write_end(summary, written)
        self._foot()
        self._canvas.save()

    def _write_head(self, summary: StatementSummary) -> None:
        head = self._head
        self._text(_LEFT, _("Statement of account"), size=16, bold=True)
        self._y -= 2 * _LINE
        facts = [
            (_("Organization"), head.organization),
            (_("Organization ID"), head.organization_id),
            (_("Period (UTC)"), f"{head.first_day} – {head.last_day}"),
            (_("Currency"), summary.currency),
            (_("Made on"), f"{head.issued_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"),
        ]
        if self._kinds:
            names = ", ".join(str(words.TRANSFER_KINDS[TransferKind(kind)]) for kind in self._kinds)
            facts.append((_("Listed"), _("only: %(kinds)s") % {"kinds": names}))
        for name, value in facts:
            self._text(_LEFT, name)
            self._text(_KIND_AT + 8 * mm, fitting(value, 9, _RIGHT - _KIND_AT - 8 * mm))
            self._y -= _LINE
        self._y -= _LINE

    def _write_sums(self, summary: StatementSummary) -> None:
        self._heading(_("The period in sums"))
        self._sum(_("Opening balance"), "", summary.opening.total_nanos, summary.currency)
        for one in summary.kinds:
            number = ngettext("%(n)d transaction", "%(n)d transactions", one.transfers) % {"n": one.transfers}
            name = transfer_name(one.kind)
            self._sum(name, number, one.amount_nanos, summary.currency, sign=True)
        self._rule()
        self._sum(_("Closing balance"), "", summary.closing.total_nanos, summary.currency, bold=True)
        if summary.closing.owed_nanos:
            owed = amount_text(summary.closing.owed_nanos, summary.currency)
            self._text(
                _LEFT, _("Of it due, and paid first by the next top-up: %(amount)s") % {"amount": owed}
            )
            self._y -= _LINE

    def _sum(
        self, name: str, number: str, nanos: int, currency: str, *, sign: bool = False, bold: bool = False
    ) -> None:
        self._room(1)
        self._text(_LEFT, name, bold=bold)
        self._text(_WHAT_AT, number)
        self._text_right(_RIGHT, amount_text(nanos, currency, sign=sign), bold=bold)
        self._y -= _LINE

    def _columns(self) -> None:
        for at, name in ((_LEFT, _("Time (UTC)")), (_KIND_AT, _("Kind")), (_WHAT_AT, _("What"))):
            self._text(at, name, size=8)
        self._text_right(_AMOUNT_AT, _("Amount"), size=8)
        self._text_right(_RIGHT, _("Balance"), size=8)
        self._y -= 3 * mm
        self._rule()

    def _write_rows(self, rows: Sequence[StatementRow], currency: str, written: int) -> int:
        for row in rows[: MAX_LINES - written]:
            if self._room(1):
                self._columns()
            kind = pgettext("transaction", "Correction") if row.cause else transfer_name(row.kind)
            what = row.model_slug or words.statement_text(row.reason)
            if row.cause:
                what = f"{what}: {correction_text(row.cause)}"
            amount = amount_text(row.amount_nanos, currency, sign=True)
            what_width = _AMOUNT_AT - _WHAT_AT - stringWidth(amount, LATIN, 8) - 2 * mm
            self._text(_LEFT, f"{row.posted_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", size=8)
            self._text(_KIND_AT, fitting(kind, 8, _WHAT_AT - _KIND_AT - 2 * mm), size=8)
            self._text(_WHAT_AT, fitting(what, 8, what_width), size=8)
            self._text_right(_AMOUNT_AT, amount, size=8)
            self._text_right(_RIGHT, amount_text(row.balance_nanos, currency), size=8)
            self._y -= _LINE
            written += 1
        return written

    def _write_end(self, summary: StatementSummary, written: int) -> None:
        listed = sum(one.transfers for one in summary.kinds if not self._kinds or one.kind in self._kinds)
        self._room(2)
        if listed > written:
            text = _(
                "Listed are the first %(written)s of %(listed)s transactions; the sums above are of all. "
                "The file as CSV lists every one."
            ) % {"written": f"{written:,}", "listed": f"{listed:,}"}
        elif not written:
            text = _("Nothing moved in this period.")
        else:
            text = _("End of the statement.")
        self._y -= 1.5 * mm
        self._text(_LEFT, text, size=8)
        self._y -= _LINE

    def _heading(self, text: str) -> None:
        self._room(3)
        self._text(_LEFT, text, size=11, bold=True)
        self._y -= 1.4 * _LINE

    def _rule(self) -> None:
        self._canvas.setLineWidth(0.4)
        self._canvas.line(_LEFT, self._y + 0.4 * _LINE, _RIGHT, self._y + 0.4 * _LINE)
        self._y -= 0.6 * _LINE

    def _room(self, lines: int) -> bool:
        """Go to the next page where so many lines do not fit on this one; whether it did."""
        if self._y - lines * _LINE >= _BOTTOM:
            return False
        self._foot()
        self._canvas.showPage()
        self._number += 1
        self._y = _TOP
        return True

    def _foot(self) -> None:
        head = self._head
        self._draw(_LEFT, 12 * mm, f"{head.organization_id} · {head.first_day} – {head.last_day}", 7)
        number = _("Page %(number)d") % {"number": self._number}
        self._draw(_RIGHT - stringWidth(printable(number), font_of(number), 7), 12 * mm, number, 7)

    def _text(self, x: float, text: str, *, size: int = 9, bold: bool = False) -> None:
        self._draw(x, self._y, text, size, bold=bold)

    def _text_right(self, x: float, text: str, *, size: int = 9, bold: bool = False) -> None:
        self._draw(
            x - stringWidth(printable(text), font_of(text, bold), size), self._y, text, size, bold=bold
        )

    def _draw(self, x: float, y: float, text: str, size: int, *, bold: bool = False) -> None:
        self._canvas.setFont(font_of(text, bold), size)
        self._canvas.drawString(x, y, printable(text))


def transfer_name(kind: str) -> str:
    return str(words.TRANSFER_KINDS[TransferKind(kind)])


def amount_text(amount_nanos: int, currency: str, *, sign: bool = False) -> str:
    """All nine decimals, so that columns stand point under point."""
    text = format_nanos(amount_nanos, currency, sign=sign)
    return text + "0" * (DECIMALS - len(text.rpartition(".")[2]))


def font_of(text: str, bold: bool = False) -> str:
    """A face that has every sign of the text, once it is printable."""
    if printable(text).encode("cp1252", "replace").decode("cp1252") == printable(text):
        return LATIN_BOLD if bold else LATIN
    return CHINESE


def printable(text: str) -> str:
    """The text with signs that one of the faces has: what neither Latin nor Chinese writes loses its accents,
    or becomes a question mark."""
    return "".join(sign if _is_drawn(sign) else _plain(sign) for sign in text)


def _is_drawn(sign: str) -> bool:
    if unicodedata.category(sign).startswith("C"):
        return False
    for encoding in ("cp1252", "gbk"):
        try:
            sign.encode(encoding)
        except UnicodeEncodeError:
            continue
        return True
    return False


def _plain(sign: str) -> str:
    base = unicodedata.normalize("NFKD", sign)[:1]
    return base if base and base != sign and _is_drawn(base) else "?"


def fitting(text: str, size: int, width: float) -> str:
    """The text, shortened to the width in points."""
    if stringWidth(printable(text), font_of(text), size) <= width:
        return text
    while text and stringWidth(printable(text + "…"), font_of(text + "…"), size) > width:
        text = text[:-1]
    return text + "…"
