"""Signatures that others can check: Ed25519 (RFC 8032), whose public key is short enough to be shown."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES: Final = 32
_KEY_ID_DIGITS: Final = 16


class InvalidSeed(ValueError):
    """The text is no seed of a key. The message never repeats it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a signature is checked with. id: how signed things name the key."""

    number: int
    hex: str

    @property
    def id(self) -> str:
        return key_id(bytes.fromhex(self.hex))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair of the installation."""

    number: int
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of_seed(cls, number: int, text: bytes) -> Self:
        """text: a seed in base64, as `new_seed` makes it. Errors: InvalidSeed."""
        try:
            seed = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            seed = b""
        if len(seed) != SEED_BYTES:
            # Without a cause, whose frames hold the text.
            raise InvalidSeed(f"a signing key is {SEED_BYTES} bytes in base64") from None
        return cls(number, Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.number, self._private.public_key().public_bytes_raw().hex())

    def sign(self, content: bytes) -> bytes:
        """64 bytes; the same for the same content."""
        return self._private.sign(content)


def new_seed() -> bytes:
    """A fresh seed in base64."""
    return base64.b64encode(secrets.token_bytes(SEED_BYTES))


def key_id(public_key: bytes) -> str:
    """What a public key is called: `ed25519-` and 16 hexadecimal digits of its SHA-256."""
    return f"ed25519-{hashlib.sha256(public_key).hexdigest()[:_KEY_ID_DIGITS]}"
