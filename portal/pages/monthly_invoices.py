"""Monthly invoices as pages show them, the organization's and the operators'."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from portal.pages.words import MONTHLY_INVOICE_STATES, MONTHLY_LINES, TOKEN_CLASSES
from quotas.payments.postpaid.queries import InvoiceDetail, InvoiceRow, LineRow, calls_of

PAGE_CALLS: Final = 100


def shown_invoice(row: InvoiceRow) -> dict[str, Any]:
    """An invoice and the word and colour of its state."""
    tone, word = MONTHLY_INVOICE_STATES[row.state]
    return {"row": row, "tone": tone, "state": word}


def shown_detail(found: InvoiceDetail) -> dict[str, Any]:
    """An invoice with the words of its lines."""
    return {
        "found": found,
        **shown_invoice(found.row),
        "lines": [{"row": line, "word": _word(line)} for line in found.lines],
    }


def _word(line: LineRow) -> Any:
    return TOKEN_CLASSES[line.token_class] if line.token_class else MONTHLY_LINES[line.kind]


def opened_calls(request: HttpRequest, found: InvoiceDetail) -> dict[str, Any]:
    """The calls of the model that the address names, if a line of the invoice is of it."""
    try:
        model_id = parse_public_id(PREFIXES["model"], request.GET.get("model", ""))
        after_text = request.GET.get("after", "")
        after = parse_public_id(PREFIXES["transfer"], after_text) if after_text else None
    except InvalidPublicId:
        return {}
    models = {line.model_id: line.model for line in found.lines if line.model_id is not None}
    if model_id not in models:
        return {}
    calls = calls_of(invoice_id=found.row.id, model_id=model_id, after=after, limit=PAGE_CALLS + 1)
    return {
        "opened": models[model_id],
        "calls": calls[:PAGE_CALLS],
        "next_call": calls[PAGE_CALLS - 1].transfer_id if len(calls) > PAGE_CALLS else None,
    }
