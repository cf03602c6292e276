"""Pools: what there is, and what it costs from when on."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404
from rest_framework import serializers

from models_catalog.fleet import operations, queries
from models_catalog.fleet.operations import CostEntry, PoolEntry
from models_catalog.models.costs import (
    MAX_ACCELERATORS,
    MAX_NANOS_PER_ACCELERATOR_HOUR,
    MAX_NANOS_PER_KWH,
    MAX_POWER_WATTS,
    MAX_PUE_THOUSANDTHS,
    MIN_PUE_THOUSANDTHS,
)
from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, Page, PublicId, Strict, Text, Whole
from portal.api.operations import operation
from portal.api.operators.fleet_answers import (
    TAG,
    CostAmount,
    PoolAnswer,
    PoolCostPageAnswer,
    PoolPageAnswer,
    checked_currency,
    entry_is_said,
    page_by,
    page_of_history,
    shown_cost,
    shown_pool,
)
from portal.api.operators.tenants import reason_field
from portal.pages.access import parse_id
from tenants.models import ManagementScope
from tenants.operations import audit

PARTS: Final = {"pool": "pool"}


class PoolBody(Strict):
    """All of a pool but its code, which stays as it is."""

    name = Text(max_length=120)
    accelerator_kind = Text(max_length=64, help_text="All of a pool are alike.")
    region = Text(max_length=64)
    reason = reason_field("The audit log keeps it.")


class NewPoolBody(PoolBody):
    code = Text(max_length=64, help_text="Letters, digits, hyphens and underscores; it stays as it is.")


class PoolCostBody(Strict):
    """What a pool costs from a moment on."""

    currency = Text(max_length=3)
    accelerators = Whole(min_value=1, max_value=MAX_ACCELERATORS)
    depreciation_per_accelerator_hour = CostAmount(most_nanos=MAX_NANOS_PER_ACCELERATOR_HOUR)
    other_per_accelerator_hour = CostAmount(
        most_nanos=MAX_NANOS_PER_ACCELERATOR_HOUR,
        required=False,
        help_text="Rent, staff, network: all that is neither depreciation nor energy.",
    )
    power_watts = Whole(
        min_value=0, max_value=MAX_POWER_WATTS, help_text="Of the whole pool with its hosts, before the PUE."
    )
    pue_thousandths = Whole(
        min_value=MIN_PUE_THOUSANDTHS, max_value=MAX_PUE_THOUSANDTHS, help_text="1250 is 1.25."
    )
    energy_per_kwh = CostAmount(most_nanos=MAX_NANOS_PER_KWH)
    owner = Text(required=False, allow_blank=True, max_length=120, help_text="Whose hardware it is.")
    region = Text(required=False, allow_blank=True, max_length=64)
    active_from = Moment(required=False, help_text="Left out: from now on.")
    reason = reason_field("The audit log keeps it.")


class PoolCostEndBody(Strict):
    ends_at = Moment(required=False, help_text="Left out: now.")
    reason = reason_field("The audit log keeps it.")


class PoolCostSetAnswer(serializers.Serializer[Any]):
    """version_id: what was set, which may begin later; pool: as it is now."""

    version_id = PublicId(kind="pool_cost")
    pool = PoolAnswer()


_RAISES: Final = {
    operations.PoolNotFound: problems.NOT_FOUND,
    operations.CodeTaken: problems.CONFLICT,
    operations.MomentPassed: problems.REFUSED,
    operations.CurrencyWithinHour: problems.REFUSED,
    operations.NothingToEnd: problems.CONFLICT,
    audit.ReasonMissing: problems.REFUSED,
}


class PoolList(OperatorEndpoint):
    @operation(
        id="listPools",
        summary="List pools",
        tag=TAG,
        action="pool.list",
        scope=ManagementScope.FLEET_READ,
        parameters=Page,
        answer=PoolPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Pools by code, with their backends and deployments."""
        rows = queries.list_pools(now=call.now)
        return page_by(call.listing, rows, key=lambda row: row.code, shown=shown_pool)

    @operation(
        id="createPool",
        summary="Add a pool",
        tag=TAG,
        action="pool.create",
        scope=ManagementScope.FLEET_WRITE,
        body=NewPoolBody,
        answer=PoolAnswer,
        status=201,
        raises={operations.CodeTaken: problems.CONFLICT, audit.ReasonMissing: problems.REFUSED},
        body_example={
            "code": "h100-a",
            "name": "H100, hall A",
            "accelerator_kind": "NVIDIA H100 80 GB",
            "region": "eu-central",
            "reason": "Delivered in week 48",
        },
    )
    def post(self, call: Call) -> Answer:
        """A pool without cost or backends. Nothing of the fleet is removed: what is no longer used is
        disabled."""
        with entry_is_said():
            pool_id = operations.save_pool(
                entry=_entry(call, call.body["code"]), actor=call.actor, reason=call.body["reason"]
            )
        return Answer(shown_pool(_find(call, pool_id)), status=201)


class PoolDetail(OperatorEndpoint):
    @operation(
        id="getPool",
        summary="Read a pool",
        tag=TAG,
        action="pool.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        answer=PoolAnswer,
    )
    def get(self, call: Call, pool: str) -> Answer:
        """One pool, what it costs now, and all that runs on it."""
        return Answer(shown_pool(_find(call, parse_id("pool", pool))))

    @operation(
        id="changePool",
        summary="Change a pool",
        tag=TAG,
        action="pool.change",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=PoolBody,
        answer=PoolAnswer,
        raises=_RAISES,
        body_example={
            "name": "H100, hall B",
            "accelerator_kind": "NVIDIA H100 80 GB",
            "region": "eu-central",
            "reason": "Moved",
        },
    )
    def put(self, call: Call, pool: str) -> Answer:
        """Name, accelerator and region, all of them."""
        found = _find(call, parse_id("pool", pool))
        with entry_is_said():
            operations.save_pool(
                entry=_entry(call, found.code),
                pool_id=found.id,
                actor=call.actor,
                reason=call.body["reason"],
            )
        return Answer(shown_pool(_find(call, found.id)))


class PoolCosts(OperatorEndpoint):
    @operation(
        id="listPoolCosts",
        summary="List what a pool costs over time",
        tag=TAG,
        action="pool.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        parameters=Page,
        answer=PoolCostPageAnswer,
    )
    def get(self, call: Call, pool: str) -> Answer:
        """What it costs, cost and will cost: the newest hundred versions, newest first."""
        found = _find(call, parse_id("pool", pool))
        rows = queries.cost_history(pool_id=found.id, now=call.now)
        return page_of_history(call.listing, rows, key=lambda row: row.public_id, shown=shown_cost)

    @operation(
        id="setPoolCost",
        summary="Set what a pool costs",
        tag=TAG,
        action="pool.cost",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=PoolCostBody,
        answer=PoolCostSetAnswer,
        status=201,
        raises=_RAISES,
        body_example={
            "currency": "USD",
            "accelerators": 64,
            "depreciation_per_accelerator_hour": "1.15",
            "other_per_accelerator_hour": "0.20",
            "power_watts": 52000,
            "pue_thousandths": 1250,
            "energy_per_kwh": "0.11",
            "active_from": "2027-01-01T00:00:00Z",
            "reason": "Contract for energy of 2027",
        },
    )
    def post(self, call: Call, pool: str) -> Answer:
        """From a moment on. What is in force then ends there; what was in force stays as it was."""
        pool_id, body = parse_id("pool", pool), call.body
        with entry_is_said():
            version_id = operations.set_pool_cost(
                pool_id=pool_id,
                entry=CostEntry(
                    currency=checked_currency(body["currency"], place="body"),
                    accelerators=body["accelerators"],
                    depreciation_nanos_per_accelerator_hour=body["depreciation_per_accelerator_hour"],
                    other_nanos_per_accelerator_hour=body.get("other_per_accelerator_hour", 0),
                    power_watts=body["power_watts"],
                    pue_thousandths=body["pue_thousandths"],
                    energy_nanos_per_kwh=body["energy_per_kwh"],
                    owner=body.get("owner", ""),
                    region=body.get("region", ""),
                ),
                active_from=body.get("active_from"),
                actor=call.actor,
                reason=body["reason"],
                now=call.now,
            )
        pool_row = _find(call, pool_id)
        context = {"currency": pool_row.cost.currency if pool_row.cost else ""}
        content = {"version_id": version_id, "pool": pool_row}
        return Answer(PoolCostSetAnswer(content, context=context).data, status=201)


class PoolCostEnd(OperatorEndpoint):
    @operation(
        id="endPoolCost",
        summary="End what a pool costs",
        tag=TAG,
        action="pool.cost_end",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=PoolCostEndBody,
        answer=PoolAnswer,
        raises=_RAISES,
        body_example={"ends_at": "2027-07-01T00:00:00Z", "reason": "The pool is given back"},
    )
    def post(self, call: Call, pool: str) -> Answer:
        """From a moment on the pool costs nothing; costs that were to begin later are withdrawn."""
        pool_id = parse_id("pool", pool)
        operations.end_pool_cost(
            pool_id=pool_id,
            ends_at=call.body.get("ends_at"),
            actor=call.actor,
            reason=call.body["reason"],
            now=call.now,
        )
        return Answer(shown_pool(_find(call, pool_id)))


def _entry(call: Call, code: str) -> PoolEntry:
    body = call.body
    return PoolEntry(code, body["name"], body["accelerator_kind"], body["region"])


def _find(call: Call, pool_id: UUID) -> queries.PoolRow:
    """Raises Http404."""
    row = queries.fleet_of_pool(pool_id=pool_id, now=call.now)
    if row is None:
        raise Http404
    return row
