"""Bank transfers and invoices on request: where money is transferred to, and what makes invoices."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from portal.settings.environment import Environment

Details = tuple[tuple[str, str], ...]
MAX_DETAILS = 12

# What a development instance and the tests show, so that the page can be looked at.
EXAMPLE_BANK_DETAILS: Mapping[str, Details] = {
    "USD": (
        ("Account holder", "Example only, do not transfer"),
        ("IBAN", "XX00 0000 0000 0000 0000 00"),
        ("BIC", "EXAMPLEXXX"),
        ("Bank", "Example Bank"),
    ),
    "CNY": (
        ("Account holder", "Example only, do not transfer"),
        ("Account number", "0000 0000 0000 0000"),
        ("Bank", "Example Bank"),
    ),
}


def read_bank_details(path: Path | None) -> Mapping[str, Details]:
    """The operators' accounts by currency, each a table of labels and values; none without a file.

    Errors: ImproperlyConfigured.
    """
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImproperlyConfigured(f"BANK_DETAILS_FILE cannot be read: {error}") from error
    for currency, table in tables.items():
        is_table = isinstance(table, dict) and 0 < len(table) <= MAX_DETAILS
        if not is_table or not all(isinstance(value, str) and value.strip() for value in table.values()):
            raise ImproperlyConfigured(f"BANK_DETAILS_FILE: {currency} must be a table of texts")
    return {currency: tuple(table.items()) for currency, table in tables.items()}


_environment = Environment()
BANK_DETAILS = read_bank_details(_environment.path("BANK_DETAILS_FILE"))
# A class, or any callable without arguments, that makes a quotas.payments.invoice_adapter.InvoiceAdapter.
INVOICE_ADAPTER = _environment.optional("INVOICE_ADAPTER") or ""
