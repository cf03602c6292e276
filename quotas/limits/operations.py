"""Setting and ending limits. Rows are not edited: a new value ends the old row and begins another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from models_catalog.models import CatalogModel, ModelGrant, ModelState
from portal.kit.ids import PREFIXES, public_id
from quotas.limits.values import LimitSource, Place, ceiling_of, values_by_place
from quotas.models import Limit, LimitKind, LimitOrigin
from quotas.models.limits import BUDGET_KINDS, MAX_LIMIT
from tenants.models import ActorKind, ApiKey, KeyPurpose
from tenants.operations import audit
from tenants.operations.organizations import lock_tenant
from tenants.scope import scope_alias

# Of each origin, so that an organization cannot leave operators without room.
MAX_LIMITS_PER_TENANT: Final = 500
MAX_ALERTS: Final = 5


class InvalidLimit(ValueError):
    """The value, the thresholds or the end of a limit are none."""


class AboveCeiling(ValueError):
    """An own limit would have no effect: the operator, the tier or the installation allow less.

    ceiling: the most that may be set, in the unit of the kind. source: whose it is.
    """

    def __init__(self, ceiling: int, source: LimitSource) -> None:
        super().__init__(f"the limit can be at most {ceiling}, which is the {source.lower()}'s")
        self.ceiling = ceiling
        self.source = source


class UnknownModel(LookupError):
    """The model is not on offer, or the organization has not enabled it."""


class UnknownKey(LookupError):
    """The organization has no such live key."""


class TooManyLimits(ValueError):
    """The organization has as many limits as it may."""


class LimitNotFound(LookupError):
    """The organization has no such limit in force, or it is not this actor's to end."""


class WrongActor(ValueError):
    """Operators set operators' limits, members their organization's own."""


def set_limit(
    *,
    tenant_id: UUID,
    kind: LimitKind,
    value: int,
    origin: LimitOrigin,
    actor: audit.Actor,
    now: datetime,
    model_id: UUID | None = None,
    api_key_id: UUID | None = None,
    is_hard: bool = True,
    alert_percents: Sequence[int] = (),
    ends_at: datetime | None = None,
    reason: str = "",
    default_rpm: int = 0,
) -> UUID:
    """Set the limit of one scope and kind, in place of what the same origin set before; its id.

    value: requests, tokens or calls, or nano-units of the wallet's currency; 0 stops every call. is_hard and
    alert_percents (1 to 100, ascending, at most MAX_ALERTS): of budgets only. reason: of operators.
    default_rpm: as in effective_limits. Setting what is set already changes nothing.
    Errors: InvalidLimit, AboveCeiling, UnknownModel, UnknownKey, TooManyLimits, WrongActor,
    audit.ReasonMissing, tenants.operations.OrganizationNotFound.
    """
    is_operator, user_id = _check_actor(actor, origin)
    reason = audit.checked_reason(reason) if is_operator else reason
    alerts = _checked_alerts(kind, alert_percents)
    _check_value(kind, value, is_hard, ends_at, now)
    place = Place(kind, model_id, api_key_id)
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        _check_scope(tenant_id, place, now, is_operator)
        if not is_operator:
            _check_ceiling(tenant_id, place, value, now, default_rpm)
        old = _open_row(tenant_id, place, origin, now)
        wanted = {"value": value, "is_hard": is_hard, "alert_percents": alerts, "ends_at": ends_at}
        if old is not None and all(getattr(old, name) == wanted[name] for name in wanted):
            return old.id
        before = _described(old) if old is not None else None
        starts_at = now
        if old is not None:
            starts_at = _end(old, now)
        elif _open_rows(tenant_id, now).filter(origin=origin).count() >= MAX_LIMITS_PER_TENANT:
            raise TooManyLimits(f"an organization has at most {MAX_LIMITS_PER_TENANT} limits")
        limit = Limit.objects.create(
            tenant_id=tenant_id,
            model_id=model_id,
            api_key_id=api_key_id,
            kind=kind,
            origin=origin,
            starts_at=starts_at,
            set_by_id=user_id,
            **wanted,
        )
        audit.record(
            actor=actor,
            action="limit.set",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["limit"], limit.id),
            before=before,
            after=_described(limit),
            reason=reason,
        )
    return limit.id


def clear_limit(
    *, tenant_id: UUID, limit_id: UUID, actor: audit.Actor, now: datetime, reason: str = ""
) -> None:
    """End a limit. Members end their organization's own, operators any, with a reason.

    Errors: LimitNotFound, audit.ReasonMissing, tenants.operations.OrganizationNotFound.
    """
    is_operator = actor.kind == ActorKind.OPERATOR
    reason = audit.checked_reason(reason) if is_operator else reason
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        rows = _open_rows(tenant_id, now).filter(id=limit_id)
        limit = (rows if is_operator else rows.filter(origin=LimitOrigin.TENANT)).first()
        if limit is None:
            raise LimitNotFound("no such limit is in force")
        before = _described(limit)
        _end(limit, now)
        audit.record(
            actor=actor,
            action="limit.clear",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["limit"], limit.id),
            before=before,
            reason=reason,
        )


def _check_actor(actor: audit.Actor, origin: LimitOrigin) -> tuple[bool, UUID]:
    is_operator = actor.kind == ActorKind.OPERATOR
    if actor.user_id is None or is_operator != (origin == LimitOrigin.OPERATOR):
        raise WrongActor(f"a limit of {origin} is not set by {actor.kind}")
    return is_operator, actor.user_id


def _check_value(kind: LimitKind, value: int, is_hard: bool, ends_at: datetime | None, now: datetime) -> None:
    if not 0 <= value <= MAX_LIMIT:
        raise InvalidLimit(f"a limit is a whole number from 0 to {MAX_LIMIT}")
    if not is_hard and kind not in BUDGET_KINDS:
        raise InvalidLimit("only a budget can do without refusing calls")
    if ends_at is not None and ends_at <= now:
        raise InvalidLimit("a limit ends in the future")


def _checked_alerts(kind: LimitKind, percents: Sequence[int]) -> list[int]:
    alerts = list(percents)
    if alerts and kind not in BUDGET_KINDS:
        raise InvalidLimit("only budgets have alerts")
    if (
        len(alerts) > MAX_ALERTS
        or alerts != sorted(set(alerts))
        or not all(1 <= one <= 100 for one in alerts)
    ):
        raise InvalidLimit(f"thresholds are at most {MAX_ALERTS} percentages from 1 to 100, ascending")
    return alerts


def _check_scope(tenant_id: UUID, place: Place, now: datetime, is_operator: bool) -> None:
    if place.model_id is not None:
        is_known = (
            CatalogModel.objects.filter(id=place.model_id, state=ModelState.ACTIVE)
            if is_operator
            else ModelGrant.objects.filter(tenant_id=tenant_id, model_id=place.model_id, ended_at=None)
        ).exists()
        if not is_known:
            raise UnknownModel("there is no such model to limit")
    if place.api_key_id is not None:
        keys = ApiKey.objects.filter(tenant_id=tenant_id, id=place.api_key_id, purpose=KeyPurpose.API)
        is_live = Q(revoked_at=None) | Q(revoked_at__gt=now)
        if not keys.filter(is_live, Q(expires_at=None) | Q(expires_at__gt=now)).exists():
            raise UnknownKey("there is no such live key")


def _check_ceiling(tenant_id: UUID, place: Place, value: int, now: datetime, default_rpm: int) -> None:
    places = values_by_place(tenant_id=tenant_id, at=now, default_rpm=default_rpm)
    ceiling = ceiling_of(places.get(place))
    if ceiling is not None and value > ceiling[0]:
        raise AboveCeiling(*ceiling)


def _open_rows(tenant_id: UUID, now: datetime) -> Any:
    """What is in force and, where another process's clock is a little ahead of ours, about to be."""
    open_rows = Limit.objects.filter(Q(ends_at=None) | Q(ends_at__gt=now), tenant_id=tenant_id)
    return open_rows.exclude(ends_at=F("starts_at"))


def _open_row(tenant_id: UUID, place: Place, origin: LimitOrigin, now: datetime) -> Limit | None:
    found: Limit | None = (
        _open_rows(tenant_id, now)
        .filter(kind=place.kind, origin=origin, model_id=place.model_id, api_key_id=place.api_key_id)
        .order_by("-starts_at")
        .first()
    )
    return found


def _end(limit: Limit, now: datetime) -> datetime:
    """End a row now, but not before it began; when that was."""
    limit.ends_at = max(now, limit.starts_at)
    limit.save(update_fields=["ends_at"])
    return limit.ends_at


def _described(limit: Limit) -> dict[str, Any]:
    """A limit as the audit log keeps it."""
    return {
        "origin": limit.origin,
        "kind": limit.kind,
        "model": limit.model.slug if limit.model else None,
        "key": public_id(PREFIXES["api_key"], limit.api_key_id) if limit.api_key_id else None,
        "value": limit.value,
        "is_hard": limit.is_hard,
        "alert_percents": list(limit.alert_percents),
        "ends_at": limit.ends_at.isoformat() if limit.ends_at else None,
    }
