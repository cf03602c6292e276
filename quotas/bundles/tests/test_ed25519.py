"""The checker's own Ed25519: the RFC's vectors, and what a well-kept library says."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.kit.signing import key_id
from quotas.bundles.tests.checker import verify_bundle

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = verify_bundle.ORDER


def theirs(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize(("public_key", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(public_key: str, message: str, signature: str) -> None:
    key, text, signed = bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature)
    assert verify_bundle.signature_holds(key, text, signed)
    assert not verify_bundle.signature_holds(key, text + b"x", signed)
    assert not verify_bundle.signature_holds(key, text, signed[:-1] + bytes([signed[-1] ^ 1]))


@settings(max_examples=40, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200))
def test_signatures_of_the_library_hold(seed: bytes, message: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    assert verify_bundle.signature_holds(public, message, private.sign(message))
    assert verify_bundle.key_id(public) == key_id(public)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=20),
    place=st.integers(0, 8 * 116 - 1),
)
def test_one_bit_changed_anywhere_is_refused_by_both(seed: bytes, message: bytes, place: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    whole = bytearray(public + private.sign(message) + message)
    place %= 8 * len(whole)
    whole[place // 8] ^= 1 << place % 8
    parts = bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96])
    assert not verify_bundle.signature_holds(*parts)
    assert not theirs(*parts)


def test_a_signature_has_one_spelling() -> None:
    """S and S + L are the same number of the group; only the lower one counts (RFC 8032, 5.1.7)."""
    key, message, signature = (bytes.fromhex(text) for text in VECTORS[0])
    s = int.from_bytes(signature[32:], "little")
    other = signature[:32] + (s + ORDER).to_bytes(32, "little")
    assert not verify_bundle.signature_holds(key, message, other)


@pytest.mark.parametrize(
    ("key", "signature"),
    [(b"", bytes(64)), (bytes(31), bytes(64)), (bytes(32), bytes(63)), (b"\xff" * 32, bytes(64))],
)
def test_what_is_no_key_or_signature(key: bytes, signature: bytes) -> None:
    assert not verify_bundle.signature_holds(key, b"", signature)
