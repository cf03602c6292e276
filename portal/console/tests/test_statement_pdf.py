"""The statement as PDF says what the page says, in any script, and ends somewhere."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pypdf import PdfReader

from portal.console.billing import statement_pdf
from portal.console.billing.statement_pdf import (
    StatementHead,
    fitting,
    font_of,
    iter_statement_pdf,
    printable,
)
from portal.console.tests.people import Stage, open_stage
from portal.console.tests.test_billing import fixture_of
from portal.kit.clock import utc_now
from tests.factories import add_granted, add_paid
from tests.factories_payments import make_refund, make_top_up

HEAD = StatementHead(
    organization="Quiet Waters Ltd",
    organization_id="org_1",
    first_day="2026-01-01",
    last_day="2026-01-31",
    issued_at=datetime(2026, 2, 1, 9, 30, tzinfo=UTC),
    language="en",
)


def text_of_pdf(data: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)


def made(stage: Stage, head: StatementHead = HEAD, **options: object) -> bytes:
    now = utc_now()
    pieces = iter_statement_pdf(
        tenant_id=stage.tenant_id,
        head=head,
        from_at=now - timedelta(days=1),
        to_at=now + timedelta(days=1),
        **options,  # type: ignore[arg-type]
    )
    return b"".join(pieces)


def test_the_page_offers_a_file_with_the_same_numbers(database: None) -> None:
    stage = open_stage("静水有限公司")
    add_granted(stage.tenant_id, 50_000)
    top_up_id = make_top_up(fixture_of(stage))
    make_refund(top_up_id, amount="5.00")
    answer = stage.get("statement-pdf")
    data = b"".join(answer.streaming_content)
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"].endswith('.pdf"')
    assert "no-store" in answer["Cache-Control"]
    text = text_of_pdf(data)
    assert stage.public_id in text
    assert "静水有限公司" in text
    assert b"STSong-Light" in data
    for amount in ("+$0.000050000", "+$20.000000000", "-$5.000000000", "$15.000050000", "$0.000000000"):
        assert amount in text, amount
    for words in ("Opening balance", "Closing balance", "Top-up", "Refund", "End of the statement."):
        assert words in text, words


def test_a_choice_of_kinds_is_named(database: None) -> None:
    stage = open_stage()
    add_granted(stage.tenant_id, 50_000)
    add_paid(stage.tenant_id, 10**9)
    text = text_of_pdf(made(stage, kinds=("GRANT",)))
    assert "only: Granted credit" in text
    assert text.count("+$0.000050000") == 2
    assert text.count("+$1.000000000") == 1
    assert "End of the statement." in text


def test_an_empty_period(database: None) -> None:
    text = text_of_pdf(made(open_stage()))
    assert "Nothing moved in this period." in text


def test_a_long_statement_is_cut_and_says_so(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_pdf, "MAX_LINES", 60)
    monkeypatch.setattr(statement_pdf, "MAX_PAGE_ROWS", 25)
    stage = open_stage()
    for _ in range(70):
        add_granted(stage.tenant_id, 1)
    data = made(stage)
    text = text_of_pdf(data)
    assert len(PdfReader(io.BytesIO(data)).pages) == 2
    assert "Page 2" in text
    assert text.count("+$0.000000001") == 60
    assert "first 60 of 70 transactions" in text
    assert "+$0.000000070" in text


def test_words_in_the_readers_language(database: None) -> None:
    stage = open_stage()
    text = text_of_pdf(made(stage, replace(HEAD, organization="Łódź Каша 株式会社 😀")))
    assert "?" in text


@pytest.mark.parametrize(
    ("text", "shown", "font"),
    [
        ("Müller & Söhne €", "Müller & Söhne €", "Helvetica"),
        ("静水 Ltd", "静水 Ltd", "STSong-Light"),
        ("Łódź", "?ódz", "Helvetica"),
        ("a\x00b\u202ec", "a?b?c", "Helvetica"),
        ("😀", "?", "Helvetica"),
        ("Каша", "Каша", "STSong-Light"),
    ],
)
def test_every_sign_has_a_face(text: str, shown: str, font: str) -> None:
    assert printable(text) == shown
    assert font_of(text) == font


def test_what_is_too_long_is_shortened() -> None:
    assert fitting("short", 9, 100) == "short"
    assert fitting("x" * 500, 9, 50).endswith("…")
    assert fitting("静" * 500, 9, 50) == "静静静静…"
