"""What an organization has and has spent, and how its budgets stand: what /v1 answers a program."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from quotas.models import LimitKind

_BALANCE: Final = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


class WalletNotFound(LookupError):
    """The organization has no wallet."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget that the next call of a key may meet. model, api_key_id: None where it is for all of them.
    pending: reserved by calls in progress, as far as they are counted. resets_at: the end of its period."""

    kind: LimitKind
    model: str | None
    api_key_id: UUID | None
    value_nanos: int
    used_nanos: int
    pending_nanos: int
    resets_at: datetime

    @property
    def remaining_nanos(self) -> int:
        return max(0, self.value_nanos - self.used_nanos - self.pending_nanos)

    @property
    def scope(self) -> str:
        if self.model is not None:
            return "model" if self.api_key_id is None else "model_and_key"
        return "organization" if self.api_key_id is None else "key"


@dataclass(frozen=True, slots=True)
class SpendingBalance:
    """Nano-units of `currency`, at one moment. spent_…: charged to calls that were admitted today and in this
    month (UTC). Granted credit of this product does not expire."""

    at: datetime
    currency: str
    paid_nanos: int
    granted_nanos: int
    owed_nanos: int
    pending_nanos: int
    overdraft_nanos: int
    spent_today_nanos: int
    spent_month_nanos: int
    budgets: tuple[BudgetState, ...]

    @property
    def total_nanos(self) -> int:
        return self.paid_nanos + self.granted_nanos - self.owed_nanos

    @property
    def available_nanos(self) -> int:
        """What the next call may hold at most, as far as money goes."""
        return self.paid_nanos + self.granted_nanos + self.overdraft_nanos - self.pending_nanos


async def read_balance(
    connection: AsyncConnection[Any], *, tenant_id: UUID, api_key_id: UUID, now: datetime
) -> SpendingBalance:
    """The balance of an organization, with the budgets that apply to one of its keys. On the data plane's
    connection. Errors: WalletNotFound, psycopg's."""
    cursor = await connection.execute(_BALANCE, {"tenant": tenant_id, "key": api_key_id, "now": now})
    row = await cursor.fetchone()
    if row is None:
        raise WalletNotFound("there is no such wallet")
    return msgspec.json.decode(row[0], type=SpendingBalance)
