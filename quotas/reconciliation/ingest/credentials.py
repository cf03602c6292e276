"""What a backend proves with that a pushed body is its own: a token, or a signature made with it.

A token is `slf_`, the feed's id and 43 random characters. It is stored encrypted, not as a digest, because
checking a signature needs it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as random_secrets
from typing import Final
from uuid import UUID

from portal.kit.ids import decode_base32, encode_base32
from portal.kit.secrets import SecretError, SecretStore
from quotas.reconciliation.ingest.source import FeedSource

PREFIX: Final = "slf"
TOLERANCE_S: Final = 300
SIGNATURE_VERSION: Final = "v1"
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"{PREFIX}_([0-7][0-9a-hjkmnp-tv-z]{{25}})_[A-Za-z0-9_-]{{43}}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(rf"{SIGNATURE_VERSION}=([0-9a-f]{{64}})")


def new_token(feed_id: UUID) -> str:
    return f"{PREFIX}_{encode_base32(feed_id)}_{random_secrets.token_urlsafe(_SECRET_BYTES)}"


def feed_of_token(token: str) -> UUID | None:
    """The feed that a token says it is of; None for what is none."""
    found = _TOKEN.fullmatch(token)
    return decode_base32(found[1]) if found else None


def signature_of(*, token: str, timestamp: str, complete_to: str, body: bytes) -> str:
    """The signature of a body as it is sent, in hexadecimal digits. timestamp: Unix seconds, in digits.
    complete_to: as the header has it, empty without one."""
    head = f"{timestamp}.{complete_to}.".encode("utf-8", "surrogateescape")
    return hmac.new(token.encode(), head + body, hashlib.sha256).hexdigest()


def is_token_of(feed: FeedSource | None, *, token: str, secrets: SecretStore | None) -> bool:
    """Without a feed the same work is done, for nothing."""
    own = _token_of(feed, secrets)
    return hmac.compare_digest(own.encode(), token.encode()) and feed is not None


def is_signed_by(
    feed: FeedSource | None,
    *,
    timestamp: str,
    complete_to: str,
    signature: str,
    body: bytes,
    now_s: float,
    secrets: SecretStore | None,
) -> bool:
    """Whether the headers sign this body and themselves now. A signature is good for TOLERANCE_S before and
    after its time; within that it may come again, and changes nothing."""
    given = _SIGNATURE.fullmatch(signature)
    if given is None or _TIMESTAMP.fullmatch(timestamp) is None:
        return False
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    own = signature_of(
        token=_token_of(feed, secrets), timestamp=timestamp, complete_to=complete_to, body=body
    )
    return hmac.compare_digest(own, given[1]) and feed is not None


def _token_of(feed: FeedSource | None, secrets: SecretStore | None) -> str:
    """The feed's token; one that nobody has when there is none, or it cannot be read."""
    nobodys = new_token(UUID(int=0))
    if feed is None or secrets is None or not feed.credential_encrypted:
        return nobodys
    try:
        return secrets.decrypt(feed.credential_encrypted)
    except SecretError:
        return nobodys
