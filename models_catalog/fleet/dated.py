"""Writes of what holds from a moment on: what a pool costs, and what a deployment has and can carry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.db.models import F, Q

from models_catalog.fleet.entries import CapacityEntry, CostEntry, InvalidEntry, values_of
from models_catalog.fleet.inventory import locked_deployment, locked_pool
from models_catalog.models import CapacityVersion, PoolCostVersion
from portal.kit.ids import PREFIXES, public_id
from tenants.operations import audit
from tenants.scope import scope_alias

VersionT = TypeVar("VersionT", PoolCostVersion, CapacityVersion)

_SHARES_GUARD = "capacity_pool_not_oversold"
# Hours are allocated in one currency (quotas.business).
_CURRENCY_GUARD = "poolcost_one_currency_an_hour"


class MomentPassed(ValueError):
    """The moment has passed and something else was in force then, which stays as it was."""


class CurrencyWithinHour(InvalidEntry):
    """A pool has one currency an hour (UTC), so another begins at a full hour."""

    def __init__(self) -> None:
        super().__init__("currency", "changes at a full hour (UTC) only")


class NothingToEnd(ValueError):
    """At that moment the pool has no cost that could end."""


class PoolOversold(ValueError):
    """More than the whole pool would be reserved at some moment."""


def set_pool_cost(
    *,
    pool_id: UUID,
    entry: CostEntry,
    actor: audit.Actor,
    reason: str,
    now: datetime,
    active_from: datetime | None = None,
) -> UUID:
    """What a pool costs from a moment on, or from now on; the id of the version.

    It takes the place of what is in force at that moment, to the end of that, and ends where the next one
    begins. A moment that has passed is taken only where nothing was in force. Moments are rounded up to whole
    seconds. Errors: InvalidEntry, CurrencyWithinHour, PoolNotFound, MomentPassed, ReasonMissing.
    """
    entry.check()
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        pool = locked_pool(pool_id)
        versions = _standing(PoolCostVersion.objects.filter(pool_id=pool_id))
        start, end, replaced = _make_room(versions, active_from, now)
        try:
            with transaction.atomic(using=scope_alias()):
                version = PoolCostVersion.objects.create(
                    pool=pool, active_from=start, active_to=end, **values_of(entry)
                )
        except IntegrityError as error:
            if _broken_by(error) == _CURRENCY_GUARD:
                raise CurrencyWithinHour from None
            raise
        _record(actor, "pool.cost", ("pool", pool_id), replaced, version, reason)
        return version.id


def end_pool_cost(
    *, pool_id: UUID, actor: audit.Actor, reason: str, now: datetime, ends_at: datetime | None = None
) -> None:
    """From a moment on, or from now on, the pool costs nothing; costs that were to begin later are withdrawn.

    Errors: PoolNotFound, NothingToEnd, MomentPassed, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        locked_pool(pool_id)
        versions = _standing(PoolCostVersion.objects.filter(pool_id=pool_id))
        earliest = _earliest(now)
        end = earliest if ends_at is None else _whole_second(ends_at)
        if end < earliest:
            raise MomentPassed("this moment has passed")
        ended = [version for version in versions if version.active_to is None or version.active_to > end]
        if not ended:
            raise NothingToEnd("the pool has no cost at that moment or later")
        for version in ended:
            _end(version, max(end, version.active_from))
        audit.record(
            actor=actor,
            action="pool.cost_end",
            target=public_id(PREFIXES["pool"], pool_id),
            before={"versions": [_told(version) for version in ended]},
            after={"active_to": end.isoformat()},
            reason=reason,
        )


def set_capacity(
    *,
    deployment_id: UUID,
    entry: CapacityEntry,
    actor: audit.Actor,
    reason: str,
    now: datetime,
    active_from: datetime | None = None,
) -> UUID:
    """What a deployment has of its pool and can carry from a moment on, or from now on; the version's id.

    It finds its place in time as `set_pool_cost` says. Errors: InvalidEntry, DeploymentNotFound,
    MomentPassed, PoolOversold, ReasonMissing.
    """
    entry.check()
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        deployment = locked_deployment(deployment_id)
        # Whoever else reserves in this pool waits here, where it costs a wait and no refused commit.
        locked_pool(deployment.backend.pool_id)
        versions = _standing(CapacityVersion.objects.filter(deployment_id=deployment_id))
        start, end, replaced = _make_room(versions, active_from, now)
        version = CapacityVersion.objects.create(
            deployment_id=deployment_id, active_from=start, active_to=end, **values_of(entry)
        )
        _check_shares()
        _record(actor, "deployment.capacity", ("deployment", deployment_id), replaced, version, reason)
        return version.id


def _standing(versions: models.QuerySet[VersionT]) -> list[VersionT]:
    """Those that were not withdrawn, by their beginning."""
    return list(
        versions.filter(Q(active_to=None) | Q(active_to__gt=F("active_from"))).order_by("active_from")
    )


def _make_room(
    versions: Sequence[VersionT], active_from: datetime | None, now: datetime
) -> tuple[datetime, datetime | None, VersionT | None]:
    """Beginning and end of a version to come; what is in force at its beginning is ended there.

    Errors: MomentPassed.
    """
    earliest = _earliest(now)
    start = earliest if active_from is None else _whole_second(active_from)
    held = next(
        (v for v in versions if v.active_from <= start and (v.active_to is None or v.active_to > start)), None
    )
    if held is None:
        return start, min((v.active_from for v in versions if v.active_from > start), default=None), None
    if start < earliest:
        raise MomentPassed("this moment has passed and something else was in force")
    end = held.active_to
    _end(held, start)
    return start, end, held


def _end(version: PoolCostVersion | CapacityVersion, at: datetime) -> None:
    type(version).objects.filter(id=version.id).update(active_to=at)


def _earliest(now: datetime) -> datetime:
    """The first whole second that the database does not call past."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return _whole_second(max(now, cursor.fetchone()[0]))


def _whole_second(moment: datetime) -> datetime:
    """Rounded up, in UTC."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)


def _check_shares() -> None:
    """What the commit would check, while there is still somebody to tell. Errors: PoolOversold."""
    try:
        with transaction.atomic(using=scope_alias()), connections[scope_alias()].cursor() as cursor:
            cursor.execute("SET CONSTRAINTS catalog_guard_shares IMMEDIATE")
            cursor.execute("SET CONSTRAINTS catalog_guard_shares DEFERRED")
    except IntegrityError as error:
        if _broken_by(error) == _SHARES_GUARD:
            raise PoolOversold("more than the whole pool would be reserved") from None
        raise


def _broken_by(error: IntegrityError) -> str | None:
    """The name of the constraint."""
    return getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)


def _record(
    actor: audit.Actor,
    action: str,
    target: tuple[str, UUID],
    replaced: PoolCostVersion | CapacityVersion | None,
    version: PoolCostVersion | CapacityVersion,
    reason: str,
) -> None:
    kind, row_id = target
    audit.record(
        actor=actor,
        action=action,
        target=public_id(PREFIXES[kind], row_id),
        before=None if replaced is None else _told(replaced),
        after=_told(version),
        reason=reason,
    )


def _told(version: PoolCostVersion | CapacityVersion) -> dict[str, Any]:
    """A version as the audit log tells of it."""
    left_out = {"pool", "deployment", "created_at", "id"}
    told: dict[str, Any] = {"version": str(version)}
    for field in version._meta.concrete_fields:
        if field.name not in left_out:
            value = getattr(version, field.attname)
            told[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return told
