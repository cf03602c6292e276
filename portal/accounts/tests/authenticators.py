"""What people hold in their hands: an authenticator app, and a key that speaks WebAuthn."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.utils import websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)

FLAGS = AuthenticatorData.FLAG


def totp_code(secret: str, *, steps_ahead: int = 0) -> str:
    """The six digits that an app shows for this key (RFC 6238), now or some steps of 30 s later."""
    counter = int(time.time()) // 30 + steps_ahead
    digest = hmac.digest(base64.b32decode(secret), counter.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0xF
    return f"{(int.from_bytes(digest[offset : offset + 4], 'big') & 0x7FFF_FFFF) % 1_000_000:06d}"


class SoftwareKey:
    """A passkey with a verified user, whose private key is in this process."""

    def __init__(self, *, rp_id: str = "localhost", origin: str = "http://localhost") -> None:
        self.rp_id, self.origin = rp_id, origin
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.credential_id = os.urandom(32)
        self.user_handle = ""
        self.counter = 0

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """The browser's answer to navigator.credentials.create."""
        public_key = options["publicKey"]
        self.user_handle = public_key["user"]["id"]
        credential = AttestedCredentialData.create(
            Aaguid.NONE, self.credential_id, ES256.from_cryptography_key(self.private_key.public_key())
        )
        data = AuthenticatorData.create(
            self._rp_id_hash(), FLAGS.UP | FLAGS.UV | FLAGS.AT, self.counter, credential
        )
        client_data = self._client_data(CollectedClientData.TYPE.CREATE, public_key["challenge"])
        return {
            **self._envelope(),
            "clientExtensionResults": {"credProps": {"rk": True}},
            "response": {
                "clientDataJSON": websafe_encode(client_data),
                "attestationObject": websafe_encode(AttestationObject.create("none", data, {})),
                "transports": ["internal"],
            },
        }

    def use(self, options: dict[str, Any]) -> dict[str, Any]:
        """The browser's answer to navigator.credentials.get."""
        self.counter += 1
        data = AuthenticatorData.create(self._rp_id_hash(), FLAGS.UP | FLAGS.UV, self.counter)
        client_data = self._client_data(CollectedClientData.TYPE.GET, options["publicKey"]["challenge"])
        signed = bytes(data) + hashlib.sha256(client_data).digest()
        return {
            **self._envelope(),
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": websafe_encode(client_data),
                "authenticatorData": websafe_encode(data),
                "signature": websafe_encode(self.private_key.sign(signed, ec.ECDSA(hashes.SHA256()))),
                "userHandle": self.user_handle,
            },
        }

    def _envelope(self) -> dict[str, Any]:
        spelled = websafe_encode(self.credential_id)
        return {"type": "public-key", "id": spelled, "rawId": spelled}

    def _rp_id_hash(self) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest()

    def _client_data(self, kind: str, challenge: str) -> CollectedClientData:
        return CollectedClientData.create(kind, challenge, self.origin)
