"""Everything that explains one charge: the one place that pages, the management API and /v1 ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import connections
from psycopg import AsyncConnection

from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7_time
from quotas.metering.queries.confirmed import is_own_scope, sureness
from quotas.metering.queries.labels import KeyLabel, ModelLabel
from quotas.metering.queries.requests import ATTEMPTS_AFTER, ATTEMPTS_BEFORE
from tenants.scope import scope_alias

MILLION = 1_000_000

_RECEIPT: Final = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
# What an engine is called is the fleet's, which an organization's own role does not see; nor does it see the
# backends' records, only what a function says of them.
_OF_TENANT: Final = _RECEIPT.replace("{engine}", "''").replace(
    "{confirmed}", "EXISTS (SELECT 1 FROM quotas_confirmed(ARRAY[q.id]))"
)
_CONFIRMED_OF: Final = "EXISTS (SELECT 1 FROM quotas_confirmed_of(q.tenant_id, ARRAY[q.id]))"
_OF_OPERATOR: Final = _RECEIPT.replace("{engine}", "''").replace("{confirmed}", _CONFIRMED_OF)
_WITH_ENGINES: Final = _RECEIPT.replace("{confirmed}", _CONFIRMED_OF).replace(
    "{engine}",
    "(SELECT b.engine FROM models_catalog_deployment d JOIN models_catalog_servingbackend b "
    "ON b.id = d.backend_id WHERE d.id = a.deployment_id)",
)


class RequestNotFound(LookupError):
    """The organization has no such request."""


@dataclass(frozen=True, slots=True)
class ChargedLine:
    """Units of one token class times the price of the line that was chosen, in nano-units per million.

    window, input_from_tokens and input_to_tokens (exclusive, None is open) say which line it is. is_billed:
    false for what the cancel policy waived.
    """

    token_class: str
    units: int
    price_nanos_per_million: int
    amount_nanos: int
    line_id: UUID
    line_class: str
    window: str | None
    input_from_tokens: int
    input_to_tokens: int | None
    is_billed: bool

    @property
    def rounding_millionths(self) -> int:
        """What rounding half up added or took, in millionths of a nano-unit."""
        return self.amount_nanos * MILLION - self.units * self.price_nanos_per_million


@dataclass(frozen=True, slots=True)
class PostedTransfer:
    """What a revision moved: nano-units by the tenant's account (TOPPED_UP, GRANTED, RECEIVABLE)."""

    id: UUID
    posted_at: datetime
    amounts: tuple[tuple[str, int], ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["transfer"], self.id)


@dataclass(frozen=True, slots=True)
class Revision:
    """What the call used as known at one time, and who said so (source). Amounts are totals, not differences:
    cost = charged + overrun (beyond the hold, ours) + waived (of a call that broke off, ours), and charged =
    paid + granted + receivable. billed: DELIVERED, INPUT or NOTHING. transfer posts the difference to the
    revision before; None when there was none. cause: why a correction was made; None for what is none.
    provenance: of the record itself."""

    revision: int
    recorded_at: datetime
    source: str
    basis: str
    provenance: str
    cause: str | None
    prompt_tokens: int
    cached_tokens: int
    image_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    billed: str
    cost_nanos: int
    charged_nanos: int
    granted_nanos: int
    receivable_nanos: int
    overrun_nanos: int
    waived_nanos: int
    lines: tuple[ChargedLine, ...]
    transfer: PostedTransfer | None

    @property
    def paid_nanos(self) -> int:
        return self.charged_nanos - self.granted_nanos - self.receivable_nanos

    @property
    def due_nanos(self) -> int:
        """What its billed lines come to; what was held bounds what of that is charged."""
        return sum(line.amount_nanos for line in self.lines if line.is_billed)

    @property
    def adds_up(self) -> bool:
        """Whether the lines' amounts are the cost, and those of the billed ones what is not waived."""
        cost = sum(line.amount_nanos for line in self.lines)
        return cost == self.cost_nanos and self.due_nanos == self.cost_nanos - self.waived_nanos


@dataclass(frozen=True, slots=True)
class PriceUsed:
    """The price version, frozen at admission. is_private: agreed with this tenant."""

    id: UUID
    currency: str
    time_zone: str
    active_from: datetime
    active_to: datetime | None
    is_private: bool
    service_tier: str
    window: str | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["price"], self.id)


@dataclass(frozen=True, slots=True)
class AttemptBar:
    """One try, for a waterfall: it began offset_ms after the admission. backend counts the different places
    that were tried from 1. engine: empty for readers who do not see the fleet. outcome None: under way. The
    token counts are the backend's."""

    id: UUID
    choice_index: int
    ordinal: int
    deployment_id: UUID
    engine: str
    backend: int
    offset_ms: int
    duration_ms: int | None
    ttft_ms: int | None
    outcome: str | None
    http_status: int | None
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class HeldMoney:
    state: str
    amount_nanos: int
    lease_until: datetime
    resolved_at: datetime | None
    resolved_by: str


@dataclass(frozen=True, slots=True)
class LimitApplied:
    """A limit that bounded the call when it was admitted: tokens, requests, calls or nano-units by its kind.
    model_id, api_key_id: None where it is for all models or all keys. source: TIER, OPERATOR or TENANT."""

    kind: str
    value: int
    source: str
    model_id: UUID | None
    api_key_id: UUID | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """One call. revisions: oldest first, the last is the truth; witnesses: who reported it, in that order.

    output_cap_tokens: per choice, as sent to the backend. max_cost_nanos: the caller's ceiling, to which the
    cap was lowered if need be. cancel_policy: what would be billed, or was, had the call broken off.
    is_confirmed: the backends' own records agree with what the gateway metered.
    """

    id: UUID
    admitted_at: datetime
    model: ModelLabel
    key: KeyLabel
    endpoint: str
    is_stream: bool
    choices: int
    prompt_bound_tokens: int
    output_cap_tokens: int
    max_cost_nanos: int | None
    cancel_policy: str
    is_confirmed: bool
    price: PriceUsed
    hold: HeldMoney
    revisions: tuple[Revision, ...]
    attempts: tuple[AttemptBar, ...]
    limits: tuple[LimitApplied, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["request"], self.id)

    @property
    def provenance(self) -> str | None:
        """How sure the newest counts are, a Sureness; None until there are any."""
        if not self.revisions:
            return None
        return sureness(self.revisions[-1].provenance, is_confirmed=self.is_confirmed)

    @property
    def witnesses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(revision.source for revision in self.revisions))

    @property
    def has_broken_off(self) -> bool:
        """Whether the caller got less than the whole answer, and something of it was delivered."""
        completed = sum(1 for attempt in self.attempts if attempt.outcome == "COMPLETED")
        return bool(self.revisions) and completed < self.choices


def request_receipt(*, tenant_id: UUID, request_id: UUID) -> Receipt:
    """The receipt of a tenant's call, in the scope that is open. Errors: RequestNotFound."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_OF_TENANT if is_own_scope() else _OF_OPERATOR, _parameters(tenant_id, request_id))
        return _receipt(cursor.fetchone())


async def read_receipt(connection: AsyncConnection[Any], *, tenant_id: UUID, request_id: UUID) -> Receipt:
    """The same over a connection of the data plane, with the engines. Errors: RequestNotFound, psycopg's."""
    # Not prepared: a plan that is kept would hold locks on every day that there is.
    cursor = await connection.execute(_WITH_ENGINES, _parameters(tenant_id, request_id), prepare=False)
    return _receipt(await cursor.fetchone())


def _parameters(tenant_id: UUID, request_id: UUID) -> dict[str, UUID]:
    try:
        from_at = uuid7_time(request_id)
        first_attempt = partition_bound(from_at - ATTEMPTS_BEFORE)
        end_attempt = partition_bound(from_at + ATTEMPTS_AFTER)
    except (ValueError, OverflowError) as error:
        # An id of a time that no call can have been admitted at.
        raise RequestNotFound("there is no such request") from error
    return {
        "tenant": tenant_id,
        "request": request_id,
        "first_attempt": first_attempt,
        "end_attempt": end_attempt,
    }


def _receipt(row: tuple[str] | None) -> Receipt:
    if row is None:
        raise RequestNotFound("there is no such request")
    found = msgspec.json.decode(row[0])
    places: dict[str, int] = {}
    for attempt in found["attempts"]:
        attempt["backend"] = places.setdefault(attempt["deployment_id"], len(places) + 1)
    return msgspec.convert(found, Receipt)
