"""Everything that explains one charge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7_time
from quotas.metering.queries.labels import KeyLabel, ModelLabel, key_labels, model_labels
from quotas.metering.queries.requests import ATTEMPTS_AFTER, ATTEMPTS_BEFORE
from quotas.models import Basis, Hold, InferenceRequest, LedgerEntry, LedgerTransfer, UsageRecord
from tenants.scope import scope_alias

MILLION = 1_000_000


class RequestNotFound(LookupError):
    """The organization has no such request."""


@dataclass(frozen=True, slots=True)
class ChargedLine:
    """Units of one token class times the price of the line that was chosen, in nano-units per million.

    window, input_from_tokens and input_to_tokens (exclusive, None is open) say which line it is.
    """

    token_class: str
    units: int
    price_nanos_per_million: int
    amount_nanos: int
    line_class: str
    window: str | None
    input_from_tokens: int
    input_to_tokens: int | None

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
    cost = charged + overrun (ours), charged = paid + granted + receivable. transfer posts the difference
    to the revision before; None when there was none."""

    revision: int
    recorded_at: datetime
    source: str
    basis: str
    provenance: str
    prompt_tokens: int
    cached_tokens: int
    image_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nanos: int
    charged_nanos: int
    granted_nanos: int
    receivable_nanos: int
    overrun_nanos: int
    lines: tuple[ChargedLine, ...]
    transfer: PostedTransfer | None

    @property
    def paid_nanos(self) -> int:
        return self.charged_nanos - self.granted_nanos - self.receivable_nanos

    @property
    def adds_up(self) -> bool:
        """Whether the lines' amounts are the cost, as they must be."""
        return sum(line.amount_nanos for line in self.lines) == self.cost_nanos


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
    that were tried from 1, and says nothing else of them. outcome None: under way. The token counts are
    the backend's."""

    id: UUID
    choice_index: int
    ordinal: int
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
class Receipt:
    """One call. revisions: oldest first, the last is the truth; witnesses: who reported it, in that order."""

    id: UUID
    admitted_at: datetime
    model: ModelLabel
    key: KeyLabel
    endpoint: str
    is_stream: bool
    choices: int
    prompt_bound_tokens: int
    output_cap_tokens: int
    price: PriceUsed
    hold: HeldMoney
    revisions: tuple[Revision, ...]
    attempts: tuple[AttemptBar, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["request"], self.id)

    @property
    def witnesses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(revision.source for revision in self.revisions))


def request_receipt(*, tenant_id: UUID, request_id: UUID) -> Receipt:
    """The receipt of a tenant's call, in the scope that is open. Errors: RequestNotFound."""
    call = (
        InferenceRequest.objects.filter(tenant_id=tenant_id, id=request_id)
        .select_related("price_version", "price_window")
        .first()
    )
    if call is None:
        raise RequestNotFound("there is no such request")
    hold = Hold.objects.get(tenant_id=tenant_id, request_id=request_id)
    price = call.price_version
    return Receipt(
        id=call.id,
        admitted_at=call.admitted_at,
        model=model_labels(model_ids=[call.model_id])[call.model_id],
        key=key_labels(key_ids=[call.api_key_id])[call.api_key_id],
        endpoint=call.endpoint,
        is_stream=call.is_stream,
        choices=call.choices,
        prompt_bound_tokens=call.prompt_bound_tokens,
        output_cap_tokens=call.output_cap_tokens,
        price=PriceUsed(
            price.id,
            price.currency,
            price.time_zone,
            price.active_from,
            price.active_to,
            price.tenant_id is not None,
            call.service_tier,
            call.price_window.name if call.price_window else None,
        ),
        hold=HeldMoney(hold.state, hold.amount_nanos, hold.lease_until, hold.resolved_at, hold.resolved_by),
        revisions=_revisions(tenant_id, request_id),
        attempts=_attempts(tenant_id, call),
    )


def _revisions(tenant_id: UUID, request_id: UUID) -> tuple[Revision, ...]:
    records = list(
        UsageRecord.objects.filter(tenant_id=tenant_id, request_id=request_id).order_by("revision")
    )
    lines = _lines(tenant_id, request_id)
    transfers = _transfers(tenant_id, [record.transfer_id for record in records if record.transfer_id])
    return tuple(
        Revision(
            revision=record.revision,
            recorded_at=record.recorded_at,
            source=record.source,
            basis=record.basis,
            provenance=record.provenance,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            image_tokens=record.image_tokens,
            completion_tokens=record.completion_tokens,
            reasoning_tokens=record.reasoning_tokens,
            cost_nanos=record.cost_nanos,
            charged_nanos=record.charged_nanos,
            granted_nanos=record.granted_nanos,
            receivable_nanos=record.receivable_nanos,
            overrun_nanos=record.overrun_nanos,
            lines=tuple(lines.get(record.revision, ())),
            transfer=transfers.get(record.transfer_id),
        )
        for record in records
    )


def _lines(tenant_id: UUID, request_id: UUID) -> dict[int, list[ChargedLine]]:
    """The lines of each revision, by the function that priced the call. Where nothing was delivered nothing
    is charged, not even a price by the request."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            """
            SELECT u.revision, c.token_class, c.units, c.price_nanos_per_million, c.amount_nanos,
              l.token_class, w.name, l.input_from_tokens, l.input_to_tokens
            FROM quotas_inferencerequest q
            JOIN quotas_usagerecord u ON u.request_id = q.id AND u.request_id = %(request)s
            CROSS JOIN LATERAL catalog_usage_lines(q.price_version_id, q.service_tier, q.price_window_id,
              u.prompt_tokens, u.cached_tokens, u.image_tokens, u.completion_tokens, u.reasoning_tokens) c
            JOIN models_catalog_priceline l ON l.id = c.line_id
            LEFT JOIN models_catalog_pricewindow w ON w.id = l.window_id
            WHERE q.id = %(request)s AND q.tenant_id = %(tenant)s AND u.basis <> %(nothing)s
            ORDER BY u.revision, array_position(
              ARRAY['input', 'cached_input', 'image', 'output', 'reasoning', 'request'], c.token_class)
            """,
            {"request": request_id, "tenant": tenant_id, "nothing": Basis.NOTHING.value},
        )
        found: dict[int, list[ChargedLine]] = {}
        for revision, *line in cursor.fetchall():
            found.setdefault(revision, []).append(ChargedLine(*line))
    return found


def _transfers(tenant_id: UUID, transfer_ids: list[UUID]) -> dict[UUID | None, PostedTransfer]:
    amounts: dict[UUID, list[tuple[str, int]]] = {}
    for transfer_id, kind, amount_nanos in (
        LedgerEntry.objects.filter(tenant_id=tenant_id, transfer_id__in=transfer_ids)
        .order_by("account__kind")
        .values_list("transfer_id", "account__kind", "amount_nanos")
    ):
        amounts.setdefault(transfer_id, []).append((kind, amount_nanos))
    return {
        transfer.id: PostedTransfer(transfer.id, transfer.posted_at, tuple(amounts.get(transfer.id, ())))
        for transfer in LedgerTransfer.objects.filter(tenant_id=tenant_id, id__in=transfer_ids)
    }


def _attempts(tenant_id: UUID, call: InferenceRequest) -> tuple[AttemptBar, ...]:
    from_at = uuid7_time(call.id)
    places: dict[UUID, int] = {}
    found = call.attempts.filter(
        tenant_id=tenant_id,
        id__gte=partition_bound(from_at - ATTEMPTS_BEFORE),
        id__lt=partition_bound(from_at + ATTEMPTS_AFTER),
    ).order_by("started_at", "choice_index", "ordinal")
    return tuple(
        AttemptBar(
            id=attempt.id,
            choice_index=attempt.choice_index,
            ordinal=attempt.ordinal,
            backend=places.setdefault(attempt.deployment_id, len(places) + 1),
            offset_ms=max(0, (attempt.started_at - call.admitted_at) // timedelta(milliseconds=1)),
            duration_ms=attempt.duration_ms,
            ttft_ms=attempt.ttft_ms,
            outcome=attempt.outcome,
            http_status=attempt.http_status,
            prompt_tokens=attempt.prompt_tokens,
            completion_tokens=attempt.completion_tokens,
        )
        for attempt in found
    )
