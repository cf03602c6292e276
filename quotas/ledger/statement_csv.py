"""The statement as comma-separated values, for spreadsheets and bookkeeping."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from portal.kit.ids import PREFIXES, public_id
from quotas.csv_text import amount, csv_text, moment, safe_text
from quotas.ledger.queries import MAX_PAGE_ROWS, StatementRow, statement_page
from tenants.scope import tenant_scope

STATEMENT_CSV_COLUMNS = (
    "posted_at",
    "transaction",
    "kind",
    "request",
    "model",
    "reason",
    "amount",
    "balance",
    "currency",
)


def iter_statement_csv(
    *, tenant_id: UUID, from_at: datetime, to_at: datetime, kinds: Sequence[str] = ()
) -> Iterator[str]:
    """The same as text of comma-separated values, a piece for each page; amounts are exact decimals.

    Between the header and the transfers stands a row of the kind OPENING, at the end one of the kind CLOSING
    with the balance behind the last transfer of the period. Opens the tenant's scope itself, for each
    piece anew, so that it can be read after the caller's scope is closed, in any thread, and a slow reader
    holds no transaction open. Errors: StatementNotFound with the first piece.
    """
    with tenant_scope(tenant_id):
        page = statement_page(
            tenant_id=tenant_id, from_at=from_at, to_at=to_at, kinds=kinds, limit=MAX_PAGE_ROWS
        )
    assert page.summary is not None
    summary = page.summary
    currency, opening_nanos = summary.currency, summary.opening.total_nanos
    closing_nanos = opening_nanos if not kinds else summary.closing.total_nanos
    yield csv_text(
        [
            STATEMENT_CSV_COLUMNS,
            (moment(from_at), None, "OPENING", None, None, None, None, amount(opening_nanos), currency),
        ]
    )
    while True:
        if page.rows and not kinds:
            closing_nanos = page.rows[-1].balance_nanos
        if page.rows:
            yield csv_text(_csv_row(row, currency) for row in page.rows)
        if page.next is None:
            break
        with tenant_scope(tenant_id):
            page = statement_page(
                tenant_id=tenant_id,
                from_at=from_at,
                to_at=to_at,
                kinds=kinds,
                after=page.next,
                limit=MAX_PAGE_ROWS,
            )
    yield csv_text(
        [(moment(to_at), None, "CLOSING", None, None, None, None, amount(closing_nanos), currency)]
    )


def _csv_row(row: StatementRow, currency: str) -> tuple[str | None, ...]:
    return (
        moment(row.posted_at),
        public_id(PREFIXES["transfer"], row.transfer_id),
        row.kind,
        public_id(PREFIXES["request"], row.request_id) if row.request_id else None,
        safe_text(row.model_slug or ""),
        safe_text(_reason(row)),
        amount(row.amount_nanos),
        amount(row.balance_nanos),
        currency,
    )


def _reason(row: StatementRow) -> str:
    """Of a correction its cause, as the interfaces spell it."""
    return f"Correction: {row.cause}" if row.cause else row.reason
