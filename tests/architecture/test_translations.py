"""Every text of the product is there in Chinese, with the placeholders that the English has."""

from __future__ import annotations

import pytest

from devstack import translations


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_every_text_is_translated(language: str) -> None:
    assert not translations.check(language)
