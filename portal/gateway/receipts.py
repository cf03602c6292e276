"""GET /v1/requests/{id}: the receipt of one call, which explains its charge. docs/receipts.md says what each
member means."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from portal.gateway.http import Client
from portal.inference.credentials import Credential
from portal.inference.errors import CallError
from portal.inference.runtime import Runtime
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.kit.money import amount_to_decimal_text
from quotas.metering.queries.receipt import (
    AttemptBar,
    ChargedLine,
    LimitApplied,
    PostedTransfer,
    Receipt,
    RequestNotFound,
    Revision,
    read_receipt,
)
from quotas.models import BUDGET_KINDS

PATH = "/v1/requests/"


async def answer_receipt(runtime: Runtime, client: Client, credential: Credential) -> None:
    """Raises CallError 401, 404 and 503. What is another organization's does not exist."""
    await runtime.authenticator.confirm(credential)
    try:
        request_id = parse_public_id(PREFIXES["request"], client.path.removeprefix(PATH))
        receipt = await runtime.authenticator.look_up(
            lambda connection: read_receipt(connection, tenant_id=credential.tenant_id, request_id=request_id)
        )
    except (InvalidPublicId, RequestNotFound):
        raise CallError(404, "request_not_found", "This organization has no such request.") from None
    await client.answer_json(receipt_json(receipt))


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Amounts are decimal texts in the price's currency; prices are for a million units."""
    latest = receipt.revisions[-1] if receipt.revisions else None
    return {
        "object": "request",
        "id": receipt.public_id,
        "admitted_at": receipt.admitted_at,
        "endpoint": receipt.endpoint,
        "model": receipt.model.slug,
        "api_key": {
            "id": public_id(PREFIXES["api_key"], receipt.key.id),
            "name": receipt.key.name,
            "hint": receipt.key.hint,
        },
        "stream": receipt.is_stream,
        "choices": receipt.choices,
        "prompt_bound_tokens": receipt.prompt_bound_tokens,
        "output_cap_tokens": receipt.output_cap_tokens,
        "max_cost": _amount(receipt.max_cost_nanos),
        "cancel_policy": receipt.cancel_policy,
        "currency": receipt.price.currency,
        "charged": _amount(latest.charged_nanos if latest else 0),
        "provenance": receipt.provenance,
        "is_settled": receipt.hold.state != "PENDING",
        "has_broken_off": receipt.has_broken_off,
        "price": {
            "id": receipt.price.public_id,
            "time_zone": receipt.price.time_zone,
            "active_from": receipt.price.active_from,
            "active_to": receipt.price.active_to,
            "is_private": receipt.price.is_private,
            "service_tier": receipt.price.service_tier,
            "window": receipt.price.window,
        },
        "hold": {
            "state": receipt.hold.state,
            "amount": _amount(receipt.hold.amount_nanos),
            "lease_until": receipt.hold.lease_until,
            "resolved_at": receipt.hold.resolved_at,
            "resolved_by": receipt.hold.resolved_by or None,
        },
        "settlements": [_revision(revision) for revision in receipt.revisions],
        "attempts": [_attempt(attempt) for attempt in receipt.attempts],
        "limits": [_limit(limit, receipt) for limit in receipt.limits],
    }


def _revision(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.revision,
        "recorded_at": revision.recorded_at,
        "source": revision.source,
        "basis": revision.basis,
        "provenance": revision.provenance,
        "correction": revision.cause,
        "usage": {
            "prompt_tokens": revision.prompt_tokens,
            "cached_tokens": revision.cached_tokens,
            "image_tokens": revision.image_tokens,
            "completion_tokens": revision.completion_tokens,
            "reasoning_tokens": revision.reasoning_tokens,
        },
        "lines": [_line(line) for line in revision.lines],
        "billed": revision.billed,
        "cost": _amount(revision.cost_nanos),
        "waived": _amount(revision.waived_nanos),
        "overrun": _amount(revision.overrun_nanos),
        "charged": _amount(revision.charged_nanos),
        "paid": _amount(revision.paid_nanos),
        "granted": _amount(revision.granted_nanos),
        "owed": _amount(revision.receivable_nanos),
        "transfer": None if revision.transfer is None else _transfer(revision.transfer),
    }


def _line(line: ChargedLine) -> dict[str, Any]:
    return {
        "token_class": line.token_class,
        "units": line.units,
        "price_per_million": _amount(line.price_nanos_per_million),
        "amount": _amount(line.amount_nanos),
        # units × price ÷ 1,000,000 + rounding = amount, exactly.
        "rounding": _exact(line.rounding_millionths),
        "is_billed": line.is_billed,
        "price_line": {
            "id": str(line.line_id),
            "token_class": line.line_class,
            "window": line.window,
            "input_from_tokens": line.input_from_tokens,
            "input_to_tokens": line.input_to_tokens,
        },
    }


def _transfer(transfer: PostedTransfer) -> dict[str, Any]:
    return {
        "id": transfer.public_id,
        "posted_at": transfer.posted_at,
        "entries": [
            {"account": account, "amount": _amount(amount_nanos)}
            for account, amount_nanos in transfer.amounts
        ],
    }


def _attempt(attempt: AttemptBar) -> dict[str, Any]:
    return {
        "id": public_id(PREFIXES["attempt"], attempt.id),
        "choice": attempt.choice_index,
        "ordinal": attempt.ordinal,
        "deployment": public_id(PREFIXES["deployment"], attempt.deployment_id),
        "engine": attempt.engine,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "offset_ms": attempt.offset_ms,
        "ttft_ms": attempt.ttft_ms,
        "duration_ms": attempt.duration_ms,
        "prompt_tokens": attempt.prompt_tokens,
        "completion_tokens": attempt.completion_tokens,
    }


def _limit(limit: LimitApplied, receipt: Receipt) -> dict[str, Any]:
    return {
        "kind": limit.kind,
        "value": _amount(limit.value) if limit.kind in BUDGET_KINDS else limit.value,
        "source": limit.source,
        "model": receipt.model.slug if limit.model_id else None,
        "api_key": public_id(PREFIXES["api_key"], limit.api_key_id) if limit.api_key_id else None,
    }


def _amount(amount_nanos: int | None) -> str | None:
    return None if amount_nanos is None else amount_to_decimal_text(amount_nanos)


def _exact(millionths: int) -> str:
    """Millionths of a nano-unit as decimal text: fifteen decimals, without the zeros behind them."""
    return f"{Decimal(millionths).scaleb(-15).normalize():f}"
