"""Identifiers: time-ordered UUIDs, their public spelling, and idempotency keys of transfers.

A public id is a prefix, an underscore and the UUID in 26 lower-case Crockford base32 digits
(`req_01jbc2…`). There is exactly one spelling of each id; anything else is refused.
"""

import hashlib
import os
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

PREFIXES: Final[dict[str, str]] = {
    "organization": "org",
    "api_key": "key",
    "request": "req",
    "attempt": "att",
    "transfer": "txn",
    "user": "usr",
    "membership": "mem",
    "model": "mdl",
    "deployment": "dep",
    "backend": "bkd",
    "pool": "pool",
    "price": "prc",
    "invitation": "inv",
    "management_key": "mk",
    "audit": "aud",
    "credit_order": "ord",
    "tier": "tier",
    "limit": "lim",
    "pool_cost": "pcv",
    "capacity": "cap",
    "curve": "crv",
    "replay": "rpl",
    "top_up": "tup",
    "refund": "rfd",
    "dispute": "dsp",
    "stripe_operation": "sop",
    "bank_receipt": "brc",
    "invoice": "ivc",
    "invoice_document": "doc",
    "monthly_invoice": "min",
    "credit_note": "crn",
    "feed": "feed",
    "feed_line": "fln",
    "discrepancy": "dcy",
    "suspense": "sus",
    "bundle": "bdl",
}

BASE32_LENGTH: Final = 26
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_MS: Final = 2**48 - 1

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# Two digits at a time halve the work of encoding: 130 bits are 13 pairs.
_PAIRS: Final = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
_PAIR_SHIFTS: Final = tuple(range(120, -1, -10))
# `int(text, 32)` knows the digits 0-9a-v, so decoding is a translation and one call in C.
_TO_PYTHON_DIGITS: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
# 26 digits hold 130 bits and a UUID has 128: the first digit is at most 7.
_BASE32_TEXT: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


class InvalidPublicId(ValueError):
    """The text is not the canonical spelling of an id with the wanted prefix. The message omits it."""


class _Random:
    """Random bytes of the system, fetched by the thousand: asking it for each id costs as much as the rest of
    making one. A forked process begins with bytes of its own; threads may share, no piece is taken twice."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        os.register_at_fork(after_in_child=self._pieces.clear)

    def take(self) -> bytes:
        try:
            return self._pieces.pop()
        except IndexError:
            fetched = os.urandom(10 * 256)
            pieces = [fetched[at : at + 10] for at in range(0, len(fetched), 10)]
            last = pieces.pop()
            self._pieces.extend(pieces)
            return last


_random: Final = _Random()


def uuid7() -> UUID:
    """A new UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits.

    Ids made in the same millisecond have no order among themselves.
    """
    moment_ms = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(_random.take(), "big")
    rand_a = random_bits >> 68
    rand_b = random_bits & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=(moment_ms & _MAX_MS) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def partition_bound(moment: datetime) -> UUID:
    """The lowest UUID of the millisecond that `moment` (aware) falls in: a bound of half-open partitions.

    It is no version 7 id itself: all bits after the time are zero, so it sorts before all ids of that moment.
    Raises ValueError for a naive moment and for one before 1970.
    """
    if moment.tzinfo is None:
        raise ValueError("partition_bound needs an aware datetime")
    moment_ms = (moment - _EPOCH) // _MILLISECOND
    if not 0 <= moment_ms <= _MAX_MS:
        raise ValueError("the moment does not fit in 48 bits of Unix milliseconds")
    return UUID(int=moment_ms << 80)


def uuid7_time(u: UUID) -> datetime:
    """The moment (UTC, to the millisecond) in the first 48 bits. Raises ValueError beyond the year 9999."""
    try:
        return _EPOCH + timedelta(milliseconds=u.int >> 80)
    except OverflowError as error:
        raise ValueError("the UUID holds no time before the year 10000") from error


def encode_base32(value: UUID) -> str:
    """26 lower-case Crockford base32 digits, most significant first."""
    number = value.int
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in _PAIR_SHIFTS])


def decode_base32(text: str) -> UUID | None:
    """The UUID that `encode_base32` spells like this, or None when the text is not its canonical spelling."""
    if _BASE32_TEXT.fullmatch(text) is None:
        return None
    return UUID(int=int(text.translate(_TO_PYTHON_DIGITS), 32))


def public_id(prefix: str, value: UUID) -> str:
    """`prefix` (one of the values of PREFIXES), an underscore and 26 base32 digits."""
    return f"{prefix}_{encode_base32(value)}"


def parse_public_id(prefix: str, text: str) -> UUID:
    """The UUID in a public id. Raises InvalidPublicId for another prefix and for any other spelling."""
    start = len(prefix) + 1
    if len(text) == start + BASE32_LENGTH and text.startswith(prefix) and text[start - 1] == "_":
        value = decode_base32(text[start:])
        if value is not None:
            return value
    raise InvalidPublicId(f"not a valid {prefix}_ id")


def transfer_id(kind: str, key: str) -> UUID:
    """The id of the transfer of this kind with this idempotency key: the first half of a SHA-256, as it is.

    SQL computes the same with
    `substring(encode(sha256(convert_to(kind || ':' || key, 'UTF8')), 'hex') for 32)::uuid`.
    Raises ValueError when the kind holds a colon, because then two pairs could share an id, and when either
    holds what a PostgreSQL text cannot (NUL, lone surrogates).
    """
    if ":" in kind:
        raise ValueError("a kind of transfer holds no colon")
    text = f"{kind}:{key}"
    if "\0" in text:
        raise ValueError("an idempotency key holds no NUL character")
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
