"""What the stand-in is told to be and to do. It is kept in the store, and changed through /_standin/."""

from __future__ import annotations

from typing import Any

import msgspec

API_VERSION = "2026-10-28.endive"
# Of the same major release, which the client's types describe as well.
KNOWN_VERSIONS = frozenset({API_VERSION, "2026-09-30.endive"})

# At once, and known only days later.
IMMEDIATE_METHODS = ("card", "alipay", "wechat_pay", "link")
DELAYED_METHODS = ("us_bank_account", "sepa_debit")
METHODS = (*IMMEDIATE_METHODS, *DELAYED_METHODS)
# Can be charged again without the person.
REUSABLE_METHODS = ("card", "link", "us_bank_account", "sepa_debit")


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Of the account. `fee_fixed` and `dispute_fee` are in the currency's smallest unit."""

    methods: list[str] = msgspec.field(
        default_factory=lambda: ["card", "alipay", "wechat_pay", "us_bank_account"]
    )
    tax_percent: float = 10.0
    fee_percent: float = 2.9
    fee_fixed: int = 30
    dispute_fee: int = 1500
    # Real seconds between two attempts to deliver an event; each attempt doubles it, up to a minute.
    retry_s: float = 1.0
    # Events wait until they are delivered by command.
    hold_webhooks: bool = False
    # Refunds stay pending until they are settled by command.
    pending_refunds: bool = False


class Chaos(msgspec.Struct, forbid_unknown_fields=True):
    """Probabilities between 0 and 1; drawn from a generator with this seed.

    Of an event's delivery: lose (never sent), double (sent twice), delay (by up to `delay_s`), reorder (sent
    after a later one). Of a request: rate_limit (429), error_before (500, nothing has begun, a retry works),
    error_stored (500 once it had begun; nothing made, the key answers 500 for good), error_after (made, and
    the key answers 500 for good), answer_lost (made, the connection breaks, a retry is told).
    """

    seed: int = 0
    lose: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    delay_s: float = 2.0
    reorder: float = 0.0
    rate_limit: float = 0.0
    error_before: float = 0.0
    error_stored: float = 0.0
    error_after: float = 0.0
    answer_lost: float = 0.0
    latency_ms: float = 0.0


REQUEST_FAULTS = ("rate_limit", "error_before", "error_stored", "error_after", "answer_lost")


def changed(struct: Any, changes: dict[str, Any]) -> Any:
    """The struct with some fields changed. Raises msgspec.ValidationError."""
    return msgspec.convert({**msgspec.to_builtins(struct), **changes}, type=type(struct))
