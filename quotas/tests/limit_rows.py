"""Limits as they stand in the database, without the rules of who may set what, and their counters."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from portal.kit.clock import utc_now
from quotas.models import ANY, Limit, LimitKind, LimitOrigin
from tenants.scope import role_scope
from tests.database import rows_of
from tests.people import make_person

_SETTER: list[UUID] = []


def setter_id() -> UUID:
    """Somebody who sets limits; one for the whole session."""
    if not _SETTER:
        _SETTER.append(make_person("setter").id)
    return _SETTER[0]


def set_limit(
    tenant_id: UUID,
    kind: LimitKind,
    value: int,
    *,
    model_id: UUID | None = None,
    api_key_id: UUID | None = None,
    origin: LimitOrigin = LimitOrigin.OPERATOR,
    is_hard: bool = True,
    at: datetime | None = None,
) -> UUID:
    """A limit of one scope and kind from `at` on (or now), in place of the one there was; its id."""
    starts_at = at or utc_now()
    with role_scope("operator"):
        _open(tenant_id, kind, model_id, api_key_id, origin).update(ends_at=starts_at)
        limit = Limit.objects.create(
            tenant_id=tenant_id,
            kind=kind,
            value=value,
            model_id=model_id,
            api_key_id=api_key_id,
            origin=origin,
            is_hard=is_hard,
            starts_at=starts_at,
            set_by_id=setter_id(),
        )
    return limit.id


def clear_limit(
    tenant_id: UUID,
    kind: LimitKind,
    *,
    model_id: UUID | None = None,
    api_key_id: UUID | None = None,
    at: datetime | None = None,
) -> None:
    with role_scope("operator"):
        _open(tenant_id, kind, model_id, api_key_id, LimitOrigin.OPERATOR).update(ends_at=at or utc_now())


def _open(
    tenant_id: UUID, kind: LimitKind, model_id: UUID | None, api_key_id: UUID | None, origin: LimitOrigin
) -> Any:
    return Limit.objects.filter(
        tenant_id=tenant_id,
        kind=kind,
        model_id=model_id,
        api_key_id=api_key_id,
        origin=origin,
        ends_at__isnull=True,
    )


def uses_of(tenant_id: UUID) -> dict[tuple[UUID | None, UUID | None, str, str], tuple[int, int]]:
    """Every counter of an organization: (used, pending) by model, key, kind and first day of its period."""
    return {
        (
            None if use["model_id"] == ANY else use["model_id"],
            None if use["api_key_id"] == ANY else use["api_key_id"],
            use["kind"],
            use["period_start"].isoformat(),
        ): (use["used"], use["pending"])
        for use in rows_of("quotas_limituse", tenant_id=tenant_id)
    }
