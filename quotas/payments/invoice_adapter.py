"""Where an installation has its invoices made by a program of its own: what that program is asked.

The setting INVOICE_ADAPTER names a class, or any callable without arguments, that makes an InvoiceAdapter.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Protocol

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from quotas.payments import invoicing
from quotas.payments.invoice_queries import InvoiceRow, waiting_invoices
from tenants.operations import audit
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MadeInvoice:
    """What an adapter has made: the number as the tax office knows it, and the PDF."""

    number: str
    content: bytes


class InvoiceAdapter(Protocol):
    """Makes invoices elsewhere. Nothing is locked and no transaction is open while it works."""

    def make(self, invoice: InvoiceRow) -> MadeInvoice | None:
        """The invoice, or None while it is not ready: it is asked for again later.

        It may be asked for the same invoice several times, also at once, and has to answer with the same one:
        `invoice.id` is the key. Whatever it raises is logged, and it is asked again.
        """
        ...


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """How many invoices of a run were issued, are not ready yet, and failed."""

    issued: int = 0
    waiting: int = 0
    failed: int = 0


def issue_by_adapter(*, now: datetime) -> AdapterReport:
    """Ask the installation's adapter for every invoice that waits; nothing without an adapter. As operator,
    in no transaction."""
    adapter = _adapter(settings.INVOICE_ADAPTER)
    if adapter is None:
        return AdapterReport()
    assert not transaction.get_connection(scope_alias()).in_atomic_block
    issued = waiting = failed = 0
    for invoice in waiting_invoices():
        try:
            made = adapter.make(invoice)
            if made is None:
                waiting += 1
                continue
            invoicing.issue_invoice(
                invoice_id=invoice.id, number=made.number, content=made.content, actor=audit.SYSTEM, now=now
            )
        except invoicing.InvoiceDecided:
            # An operator, or another worker, was faster.
            continue
        except Exception:
            # One invoice that fails, in whatever way, keeps no other one waiting.
            failed += 1
            logger.exception("quotas.payments.invoice_not_made", extra={"invoice": invoice.public_id})
        else:
            issued += 1
    return AdapterReport(issued, waiting, failed)


@cache
def _adapter(path: str) -> InvoiceAdapter | None:
    return import_string(path)() if path else None
