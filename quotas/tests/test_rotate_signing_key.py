"""`manage.py rotate_signing_key`: a first key, and further ones beside it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from portal.kit.secrets import SecretStore


def rotate() -> str:
    said = io.StringIO()
    call_command("rotate_signing_key", stdout=said)
    return said.getvalue()


def test_a_first_and_a_further_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SecretStore.create_missing(tmp_path / "secrets")
    (tmp_path / "secrets" / "signing_key_1").unlink()
    store = SecretStore.load(tmp_path / "secrets")
    monkeypatch.setattr(settings, "SECRET_STORE", store)
    assert "signing_key_1" in rotate()
    first = store.signing_key().public
    said = rotate()
    assert "signing_key_2" in said
    assert store.signing_key().public.hex in said
    assert [key.number for key in store.public_keys()] == [2, 1]
    assert store.public_keys()[1] == first
    seed = (tmp_path / "secrets" / "signing_key_2").read_text().strip()
    assert seed not in said


def test_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SECRET_STORE", None)
    with pytest.raises(CommandError, match="SECRETS_DIR"):
        rotate()
