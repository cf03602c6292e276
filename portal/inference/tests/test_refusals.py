"""What a caller is told when a quota or a budget refuses the call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from portal.inference.errors import refusal
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.admission import AdmissionAnswer, LimitHit, Refusal, Verdict
from quotas.models import LimitKind

RESETS_AT = datetime(2126, 12, 1, tzinfo=UTC)
MODEL, KEY = uuid7(), uuid7()


def refused(
    kind: LimitKind,
    *,
    model_id: UUID | None = None,
    api_key_id: UUID | None = None,
    fits: int = 0,
    resets_at: datetime = RESETS_AT,
) -> AdmissionAnswer:
    is_budget = kind in (LimitKind.MONEY_DAY, LimitKind.MONEY_MONTH)
    unit = 10**7 if is_budget else 1
    return AdmissionAnswer(
        uuid7(),
        Verdict.REFUSED,
        Refusal.BUDGET_EXCEEDED if is_budget else Refusal.QUOTA_EXCEEDED,
        "CNY",
        42 * 10**7,
        10**12,
        0,
        fits,
        LimitHit(kind, model_id, api_key_id, 5_000 * unit, 4_980 * unit, 15 * unit, 42 * unit, resets_at),
    )


def test_a_budget_says_what_is_spent_held_and_needed_and_when_it_resets() -> None:
    error = refusal(
        refused(LimitKind.MONEY_MONTH, api_key_id=KEY, fits=190), slug="a/b", output_cap_tokens=400
    )
    assert (error.status, error.code, error.type) == (402, "budget_exceeded", "insufficient_quota")
    assert error.message == (
        "Monthly budget of this API key reached: ¥50.00, of which ¥49.80 is spent and ¥0.15 is held by calls "
        "in progress; this call needs up to ¥0.42. It resets on 2126-12-01 00:00 UTC. Lower max_tokens to "
        "190, or have the budget raised."
    )
    assert error.details == {
        "currency": "CNY",
        "limit": {
            "kind": "MONEY_MONTH",
            "scope": "key",
            "value": "50",
            "used": "49.8",
            "pending": "0.15",
            "resets_at": "2126-12-01T00:00:00.000Z",
        },
        "needed": "0.42",
        "max_tokens_that_fit": 190,
    }
    # Waiting a little does not help; money is not a rate.
    assert error.retry_after_s is None


def test_a_quota_says_the_same_in_tokens_and_when_to_come_back() -> None:
    in_an_hour = utc_now() + timedelta(hours=1)
    error = refusal(refused(LimitKind.TOKENS_DAY, resets_at=in_an_hour), slug="a/b", output_cap_tokens=400)
    assert (error.status, error.code, error.type) == (429, "quota_exceeded", "insufficient_quota")
    assert error.message == (
        "Daily token quota of this organization reached: 5000 tokens, of which 4980 are used and 15 are held "
        f"by calls in progress; this call needs up to 42. It resets on {in_an_hour:%Y-%m-%d %H:%M} UTC. Wait "
        "until then, or have the quota raised."
    )
    assert error.details["limit"]["scope"] == "organization"
    assert error.details["needed"] == 42
    assert error.retry_after_s is not None
    assert 3_590 <= error.retry_after_s <= 3_600


@pytest.mark.parametrize(
    ("model_id", "api_key_id", "scope", "words"),
    [
        (None, None, "organization", "of this organization reached"),
        (MODEL, None, "model", "of the model 'a/b' reached"),
        (None, KEY, "key", "of this API key reached"),
        (MODEL, KEY, "model_and_key", "of the model 'a/b' with this API key reached"),
    ],
)
@pytest.mark.parametrize("kind", [LimitKind.TOKENS_MONTH, LimitKind.MONEY_DAY])
def test_the_scope_is_named(
    kind: LimitKind, model_id: UUID | None, api_key_id: UUID | None, scope: str, words: str
) -> None:
    error = refusal(refused(kind, model_id=model_id, api_key_id=api_key_id), slug="a/b", output_cap_tokens=4)
    assert error.details["limit"]["scope"] == scope
    assert words in error.message
