"""The form of a draft: time bands and lines as rows of texts, which stay as typed until they are right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.utils.translation import gettext as _

from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.pricing.checks import MAX_LINES, MAX_WINDOWS, InvalidTariff, WindowEntry
from models_catalog.pricing.content import PriceContent, PriceLineContent
from models_catalog.pricing.weeks import InvalidSpan, Span, parse_span, span_texts
from portal.backoffice.prices.words import problem_text
from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount

_FIELD: Final = re.compile(r"(window|line)-(\d{1,4})-([a-z_]{1,16})")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_MAX_TEXT: Final = 4000
# Rows that a form may hold; what is stored is bounded by the domain.
_MAX_ROWS: Final = {"window": MAX_WINDOWS, "line": MAX_LINES}


@dataclass(slots=True)
class WindowRow:
    """A time band as it is typed. `key` is what lines refer to, so that renaming one keeps its lines."""

    key: str
    name: str = ""
    spans: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class LineRow:
    """A line as it is typed. window: the key of its band, empty for all times."""

    key: str
    token_class: str = "input"  # noqa: S105 — a class of units of text, no credential
    service_tier: str = "standard"
    window: str = ""
    input_from: str = ""
    input_to: str = ""
    price: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Editor:
    """What the form shows. errors: of the whole, by part. focus: the row that has just been added."""

    time_zone: str
    windows: list[WindowRow]
    lines: list[LineRow]
    expected: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    focus: str = ""

    @property
    def has_errors(self) -> bool:
        return (
            bool(self.errors)
            or any(row.errors for row in self.windows)
            or any(row.errors for row in self.lines)
        )

    @property
    def can_add_line(self) -> bool:
        return len(self.lines) < MAX_LINES

    @property
    def can_add_window(self) -> bool:
        return len(self.windows) < MAX_WINDOWS

    def note(self, error: InvalidTariff) -> None:
        """Put what the domain found wrong to where it was typed."""
        for problem in error.problems:
            text = problem_text(problem)
            rows: Sequence[WindowRow] | Sequence[LineRow] = (
                self.windows if problem.part == "windows" else self.lines
            )
            if problem.index is None or problem.part == "time_zone":
                self.errors.setdefault(problem.part, text)
            else:
                rows[problem.index].errors.setdefault(problem.field, text)


def editor_of(content: PriceContent) -> Editor:
    """The form of what is stored."""
    windows = [
        WindowRow(f"w{place}", name, ", ".join(span_texts(spans)))
        for place, (name, spans) in enumerate(content.ordered_windows)
    ]
    keys = {row.name: row.key for row in windows}
    lines = [
        LineRow(
            str(place),
            line.token_class,
            line.service_tier,
            keys.get(line.window or "", ""),
            str(line.input_from_tokens) if line.input_from_tokens else "",
            "" if line.input_to_tokens is None else str(line.input_to_tokens),
            amount_to_decimal_text(line.price_nanos_per_million),
        )
        for place, line in enumerate(content.ordered_lines)
    ]
    return Editor(content.time_zone, windows, lines, content.sha256)


def read_editor(posted: Mapping[str, str]) -> Editor:
    """The form as it was sent, in the order of its rows."""
    found: dict[str, dict[int, dict[str, str]]] = {"window": {}, "line": {}}
    for name, text in posted.items():
        match = _FIELD.fullmatch(name)
        if match:
            part, number, what = match[1], int(match[2]), match[3]
            found[part].setdefault(number, {})[what] = text[:_MAX_TEXT].strip()
    windows = [
        WindowRow(f"w{number}", values.get("name", ""), values.get("spans", ""))
        for number, values in sorted(found["window"].items())[: _MAX_ROWS["window"]]
    ]
    lines = [
        LineRow(
            str(number),
            values.get("token_class", ""),
            values.get("service_tier", ""),
            values.get("window", ""),
            values.get("input_from", ""),
            values.get("input_to", ""),
            values.get("price", ""),
        )
        for number, values in sorted(found["line"].items())[: _MAX_ROWS["line"]]
    ]
    return Editor(posted.get("time_zone", "").strip()[:_MAX_TEXT], windows, lines, posted.get("expected", ""))


def change_rows(editor: Editor, action: str) -> bool:
    """Add or take away a row as a button asks for; whether it was such a button."""
    if action == "add-line" and editor.can_add_line:
        number = max((int(row.key) for row in editor.lines), default=-1) + 1
        last = editor.lines[-1] if editor.lines else LineRow("0")
        editor.lines.append(LineRow(str(number), last.token_class, last.service_tier))
        editor.focus = f"line-{number}"
    elif action == "add-window" and editor.can_add_window:
        number = max((int(row.key[1:]) for row in editor.windows), default=-1) + 1
        editor.windows.append(WindowRow(f"w{number}"))
        editor.focus = f"window-{number}"
    elif action.startswith("remove-line-"):
        editor.lines = [row for row in editor.lines if row.key != action.removeprefix("remove-line-")]
    elif action.startswith("remove-window-"):
        editor.windows = [row for row in editor.windows if row.key != action.removeprefix("remove-window-")]
    else:
        return False
    return True


def entries_of(editor: Editor) -> tuple[list[WindowEntry], list[PriceLineContent]] | None:
    """What was typed as values; None when some of it cannot be read, which its row then says."""
    windows = [WindowEntry(row.name, tuple(_spans(row))) for row in editor.windows]
    names = {row.key: row.name for row in editor.windows}
    lines = [_line(row, names) for row in editor.lines]
    if editor.has_errors:
        return None
    return windows, lines


def _spans(row: WindowRow) -> list[Span]:
    texts = [text.strip() for text in re.split(r"[,;\n]", row.spans) if text.strip()]
    spans: list[Span] = []
    for text in texts:
        try:
            spans += parse_span(text)
        except InvalidSpan:
            row.errors.setdefault(
                "spans",
                _("“%(text)s” is no time of the week. Write Mon-Fri 00:30-08:30 or Sat 22:00-Sun 06:00.")
                % {"text": text[:60]},
            )
    return spans


def _line(row: LineRow, names: Mapping[str, str]) -> PriceLineContent:
    window = names.get(row.window) if row.window else None
    if row.window and window is None:
        row.errors["window"] = _("This time band is gone. Choose another, or all times.")
    return PriceLineContent(
        row.token_class,
        row.service_tier,
        window,
        _read(row, "input_from", row.input_from, _tokens) or 0,
        _read(row, "input_to", row.input_to, _tokens),
        _price(row),
    )


def _read(row: LineRow, name: str, text: str, read: Callable[[str], int | None]) -> int | None:
    if not text:
        return None
    value = read(text)
    if value is None:
        row.errors[name] = _("Write a whole number of tokens in digits.")
    return value


def _tokens(text: str) -> int | None:
    """Digits, by three or not."""
    plain = text.replace(",", "").replace(" ", "").replace("\u202f", "")
    return int(plain) if _WHOLE.fullmatch(plain) else None


def _price(row: LineRow) -> int:
    try:
        nanos = parse_amount(row.price)
    except InvalidAmount:
        row.errors["price"] = _("Write a price such as 0.27, with at most nine decimals.")
        return 0
    if not 0 <= nanos <= MAX_PRICE_NANOS_PER_MILLION:
        row.errors["price"] = _("A price is from 0 to 1000 per million.")
    return nanos
