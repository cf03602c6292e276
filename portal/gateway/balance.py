"""GET /v1/balance: what the organization of a key has, and what it may still spend."""

from __future__ import annotations

from typing import Any

from portal.gateway.http import Client
from portal.inference.credentials import Credential
from portal.inference.errors import wrong_key
from portal.inference.runtime import Runtime
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import amount_to_decimal_text
from quotas.limits.balance import BudgetState, SpendingBalance, WalletNotFound, read_balance


async def answer_balance(runtime: Runtime, client: Client, credential: Credential) -> None:
    """Raises CallError 401 and 503."""
    await runtime.authenticator.confirm(credential)
    try:
        balance = await runtime.authenticator.look_up(
            lambda connection: read_balance(
                connection,
                tenant_id=credential.tenant_id,
                api_key_id=credential.api_key_id,
                now=utc_now(),
            )
        )
    except WalletNotFound:
        raise wrong_key() from None
    await client.answer_json(balance_json(balance))


def balance_json(balance: SpendingBalance) -> dict[str, Any]:
    """Amounts are decimal texts in `currency`: exact, and never rounded by a reader's floating point."""
    return {
        "object": "balance",
        "at": balance.at,
        "currency": balance.currency,
        "available": amount_to_decimal_text(balance.available_nanos),
        "total": amount_to_decimal_text(balance.total_nanos),
        "paid": amount_to_decimal_text(balance.paid_nanos),
        "granted": amount_to_decimal_text(balance.granted_nanos),
        # Granted credit of this product has no end yet; the name is there for the day when it gets one.
        "granted_expires_at": None,
        "owed": amount_to_decimal_text(balance.owed_nanos),
        "pending": amount_to_decimal_text(balance.pending_nanos),
        "overdraft": amount_to_decimal_text(balance.overdraft_nanos),
        "spent": {
            "today": amount_to_decimal_text(balance.spent_today_nanos),
            "month": amount_to_decimal_text(balance.spent_month_nanos),
        },
        "budgets": [_budget_json(budget) for budget in balance.budgets],
    }


def _budget_json(budget: BudgetState) -> dict[str, Any]:
    return {
        "kind": budget.kind.value,
        "scope": budget.scope,
        "model": budget.model,
        "api_key": public_id(PREFIXES["api_key"], budget.api_key_id) if budget.api_key_id else None,
        "value": amount_to_decimal_text(budget.value_nanos),
        "used": amount_to_decimal_text(budget.used_nanos),
        "pending": amount_to_decimal_text(budget.pending_nanos),
        "remaining": amount_to_decimal_text(budget.remaining_nanos),
        "is_exhausted": budget.remaining_nanos == 0,
        "resets_at": budget.resets_at,
    }
