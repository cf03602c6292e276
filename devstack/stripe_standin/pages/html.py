"""The look of the pages for people, and the ways to answer a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

_STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f4f5; color: #18181b; }
.banner { background: #b45309; color: #fff; padding: .5rem 1rem; text-align: center; font-weight: 600; }
main { max-width: 34rem; margin: 1.5rem auto; padding: 1.25rem; background: #fff; border: 1px solid #d4d4d8;
  border-radius: .5rem; }
h1 { font-size: 1.25rem; margin: 0 0 .75rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
table { width: 100%; border-collapse: collapse; } td { padding: .25rem 0; vertical-align: top; }
td.amount { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total td { border-top: 1px solid #d4d4d8; font-weight: 600; }
label { display: block; padding: .375rem 0; } label.field { padding: .25rem 0; }
label.field input, label.field select { width: 100%; padding: .4rem; font: inherit; border: 1px solid #71717a;
  border-radius: .25rem; }
button { font: inherit; padding: .5rem 1rem; border: 0; border-radius: .25rem; background: #18181b;
  color: #fff; cursor: pointer; }
button.quiet { background: #e4e4e7; color: #18181b; padding: .25rem .6rem; }
button.wide { width: 100%; margin-top: .75rem; }
.error { background: #fee2e2; color: #991b1b; padding: .5rem .75rem; border-radius: .25rem; }
.done { background: #dcfce7; color: #166534; padding: .5rem .75rem; border-radius: .25rem; }
.note { color: #52525b; font-size: .875rem; } form.inline { display: inline; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(slots=True)
class Page:
    """An answer to a browser."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def page(title: str, content: str, *, status: int = 200) -> Page:
    """A whole page; `content` is HTML already."""
    text = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>{escape(title)} (stand-in)</title><style>{_STYLE}</style></head><body>"
        "<p class='banner' data-testid='standin-banner'>Stand-in for Stripe: nothing here is real, no money "
        f"moves.</p><main><h1>{escape(title)}</h1>{content}</main></body></html>"
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-store",
    }
    return Page(status, text.encode(), headers)


def redirect(address: str) -> Page:
    return Page(303, b"", {"Location": address, "Cache-Control": "no-store"})


def money(amount: int, currency: str) -> str:
    """An amount of the smallest unit, for reading."""
    return f"{amount / 100:,.2f} {currency.upper()}"


def row(label: str, amount: int, currency: str, *, testid: str = "", total: bool = False) -> str:
    kind = " class='total'" if total else ""
    return (
        f"<tr{kind}><td>{escape(label)}</td><td class='amount' data-testid='{testid}'>"
        f"{money(amount, currency)}</td></tr>"
    )


def error(message: str | None) -> str:
    if not message:
        return ""
    return f"<p class='error' role='alert' data-testid='error'>{escape(message)}</p>"


def done(message: str) -> str:
    return f"<p class='done' role='status' data-testid='done'>{escape(message)}</p>"


def link(address: str | None, label: str, testid: str) -> str:
    return (
        f"<p><a href='{escape(address, quote=True)}' data-testid='{testid}'>{escape(label)}</a></p>"
        if address
        else ""
    )


# What a person can choose on any page that takes a card: value → (what it says, last four digits, behaviour).
CARDS: dict[str, tuple[str, str, str]] = {
    "card": ("Card 4242: pays", "4242", "pays"),
    "card_declined": ("Card 0002: is declined", "0002", "declined"),
    "card_insufficient_funds": ("Card 9995: has no funds", "9995", "insufficient_funds"),
    "card_authentication": (
        "Card 3155: pays, asks for you when charged later",
        "3155",
        "authentication_required",
    ),
    "card_declined_later": ("Card 0341: pays, is declined when charged later", "0341", "declined_later"),
}


def choices(options: dict[str, str]) -> str:
    """Radio buttons named `choice`, the first one chosen."""
    return "".join(
        f"<label><input type='radio' name='choice' value='{value}' data-testid='choice-{value}'"
        f"{' checked' if number == 0 else ''}> {escape(label)}</label>"
        for number, (value, label) in enumerate(options.items())
    )


def card_labels() -> dict[str, str]:
    return {value: label for value, (label, _, _) in CARDS.items()}
