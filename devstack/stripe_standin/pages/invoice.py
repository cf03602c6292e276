"""The hosted invoice page, and the invoice as a document."""

from __future__ import annotations

from html import escape

from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.pages.html import (
    CARDS,
    Page,
    card_labels,
    choices,
    done,
    error,
    link,
    money,
    page,
    row,
)
from devstack.stripe_standin.resources import invoice_states, payment_methods
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World


def show(world: World, invoice: Obj, refusal: str | None = None) -> Page:
    currency = invoice["currency"]
    rows = [
        row(line["description"] or "", line["amount"], currency)
        for line in invoice_states.lines_of(world, invoice)
    ]
    tax = invoice["total"] - invoice["total_excluding_tax"]
    if tax:
        rows.append(row("Tax", tax, currency, testid="tax"))
    if invoice["pre_payment_credit_notes_amount"]:
        rows.append(row("Credited", -invoice["pre_payment_credit_notes_amount"], currency, testid="credited"))
    rows.append(row("Due", invoice["amount_remaining"], currency, testid="total", total=True))
    content = [error(refusal), f"<table>{''.join(rows)}</table>"]
    if invoice["status"] in ("open", "uncollectible"):
        content.append(
            f"<form method='post'>{choices(card_labels())}<button class='wide' data-testid='pay'>Pay "
            f"{money(invoice['amount_remaining'], currency)}</button></form>"
        )
    else:
        content.append(done(f"This invoice is {invoice['status']}."))
    content.append(link(invoice["invoice_pdf"], "Download the PDF", "pdf"))
    return page(f"Invoice {invoice['number']}", "".join(content))


def submit(world: World, invoice: Obj, params: Params) -> Page:
    """The person chose a card, and confirmed."""
    _, last4, behaviour = CARDS[params.choice("choice", CARDS, "card") or "card"]
    if invoice["status"] not in ("open", "uncollectible"):
        return show(world, invoice)
    method = payment_methods.make(world, "card", behaviour=behaviour, last4=last4)
    refusal = invoice_states.take_payment(world, invoice, method, on_session=True)
    message = str(refusal["message"]) if refusal else None
    return show(world, world.get("invoice", invoice["id"]), message)


def document(world: World, invoice: Obj) -> Page:
    """A PDF of one page that says what it is."""
    lines = [
        "STAND-IN FOR STRIPE: NOT A REAL INVOICE",
        f"Invoice {invoice['number']}",
        f"Customer {invoice['customer_name'] or invoice['customer']}",
        f"Total {money(invoice['total'], invoice['currency'])}",
        f"Status {invoice['status']}",
    ]
    return Page(200, _pdf(lines), {"Content-Type": "application/pdf"})


def receipt(charge: Obj) -> Page:
    content = (
        f"<table>{row('Paid', charge['amount'], charge['currency'], testid='total')}"
        f"{row('Refunded', charge['amount_refunded'], charge['currency'], testid='refunded')}</table>"
        f"<p class='note'>{escape(charge['id'])}</p>"
    )
    return page("Receipt", content)


def _pdf(lines: list[str]) -> bytes:
    def safe(line: str) -> str:
        plain = line.encode("ascii", "replace").decode()
        return plain.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")

    text = "BT /F1 12 Tf 72 770 Td 18 TL " + " ".join(f"({safe(line)}) Tj T*" for line in lines) + " ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return f"{out}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode("ascii")
