"""Where money is transferred to is read from a file, and a mistake in it stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from portal.settings.bank import read_bank_details


def test_each_currency_has_a_table(tmp_path: Path) -> None:
    assert read_bank_details(None) == {}
    file = tmp_path / "bank.toml"
    file.write_text('[USD]\n"Account holder" = "Us"\nIBAN = "DE00"\n[CNY]\nBank = "B"\n', encoding="utf-8")
    assert read_bank_details(file) == {
        "USD": (("Account holder", "Us"), ("IBAN", "DE00")),
        "CNY": (("Bank", "B"),),
    }


@pytest.mark.parametrize(
    "text", ["USD = 1", "[USD]", "[USD]\nIBAN = 1", '[USD]\nIBAN = " "', "[USD", '[USD]\n"a"."b" = "c"']
)
def test_a_mistake_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bank.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ImproperlyConfigured, match="BANK_DETAILS_FILE"):
        read_bank_details(file)
    with pytest.raises(ImproperlyConfigured, match="BANK_DETAILS_FILE"):
        read_bank_details(tmp_path / "missing.toml")
