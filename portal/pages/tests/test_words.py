"""What the house itself writes into statements has words in every language."""

from __future__ import annotations

from django.utils import translation

from portal.pages.words import (
    HOUSE_TRANSFERS,
    STATEMENT_WORDS,
    TENANT_TRANSFERS,
    TRANSFER_KINDS,
    statement_text,
)
from quotas.credit import operations
from quotas.models import TransferKind
from quotas.payments import fulfilment

ORDER = "ord_01m8g3cb9ke22rrqtbr9wdx065"


def test_every_order_has_words() -> None:
    assert set(operations.STATEMENT_WORDS.values()) < set(STATEMENT_WORDS)


def test_every_payment_has_words() -> None:
    assert set(fulfilment.STATEMENT_WORDS.values()) < set(STATEMENT_WORDS)
    assert set(TRANSFER_KINDS) == set(TransferKind)
    assert not HOUSE_TRANSFERS & set(TENANT_TRANSFERS)


def test_reasons_in_the_readers_language() -> None:
    assert statement_text(f"Granted credit ({ORDER})") == f"Granted credit ({ORDER})"
    with translation.override("zh-hans"):
        assert statement_text(f"Granted credit ({ORDER})") == f"赠送（{ORDER}）"
        assert statement_text(f"Granted credit taken back ({ORDER})") == f"收回赠送（{ORDER}）"
        assert statement_text("Welcome credit") == "新用户赠送"
        # What somebody wrote stays.
        for written in ("For the outage", f"For the outage ({ORDER})", "Granted credit (ord_1)", ""):
            assert statement_text(written) == written
