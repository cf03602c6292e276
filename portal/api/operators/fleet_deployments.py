"""Deployments: models on backends, and what they have of their pool and can carry."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404
from rest_framework import serializers

from models_catalog.fleet import operations, queries
from models_catalog.fleet.operations import CapacityEntry, DeploymentEntry
from models_catalog.fleet.queries import DeploymentRow
from models_catalog.models import FleetState
from models_catalog.models.costs import MAX_CAPACITY_TOKENS_PER_S, MAX_WEIGHT_THOUSANDTHS, WHOLE_PPM
from models_catalog.pricing.queries import model_of
from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, OneOf, Page, PublicId, Strict, Text, Whole
from portal.api.operations import operation
from portal.api.operators.fleet_answers import (
    TAG,
    CapacityPageAnswer,
    DeploymentAnswer,
    DeploymentPageAnswer,
    StateBody,
    entry_is_said,
    page_by,
    page_of_history,
    shown_capacity,
    shown_deployment,
)
from portal.api.operators.tenants import reason_field
from portal.api.paging import identifier
from portal.pages.access import parse_id
from tenants.models import ManagementScope
from tenants.operations import audit

PARTS: Final = {"deployment": "deployment"}


class DeploymentParameters(Page):
    model = Text(required=False, max_length=120, help_text="Slug, `vendor/name`.")
    pool = PublicId(kind="pool", required=False)
    backend = PublicId(kind="backend", required=False)
    state = OneOf(choices=FleetState.values, required=False)


class DeploymentBody(Strict):
    upstream_model = Text(max_length=200, help_text="How the backend calls the model.")
    reason = reason_field("The audit log keeps it.")


class NewDeploymentBody(DeploymentBody):
    backend = PublicId(kind="backend")
    model = Text(max_length=120, help_text="Slug, `vendor/name`.")


class CapacityBody(Strict):
    """What a deployment has of its pool and can carry from a moment on."""

    reserved_ppm = Whole(
        min_value=0, max_value=WHOLE_PPM, help_text="Share of the pool in millionths, used or idle."
    )
    capacity_tokens_per_s = Whole(
        min_value=1,
        max_value=MAX_CAPACITY_TOKENS_PER_S,
        help_text="Measured at full load: tokens times their weights.",
    )
    input_weight_thousandths = Whole(min_value=0, max_value=MAX_WEIGHT_THOUSANDTHS)
    cached_weight_thousandths = Whole(min_value=0, max_value=MAX_WEIGHT_THOUSANDTHS)
    output_weight_thousandths = Whole(min_value=1, max_value=MAX_WEIGHT_THOUSANDTHS)
    active_from = Moment(required=False, help_text="Left out: from now on.")
    reason = reason_field("The audit log keeps it.")


class CapacitySetAnswer(serializers.Serializer[Any]):
    """version_id: what was set, which may begin later; deployment: as it is now."""

    version_id = PublicId(kind="capacity")
    deployment = DeploymentAnswer()


_RAISES: Final = {
    operations.DeploymentNotFound: problems.NOT_FOUND,
    audit.ReasonMissing: problems.REFUSED,
}


class DeploymentList(OperatorEndpoint):
    @operation(
        id="listDeployments",
        summary="List deployments",
        tag=TAG,
        action="deployment.list",
        scope=ManagementScope.FLEET_READ,
        parameters=DeploymentParameters,
        answer=DeploymentPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Which model is on which backend, by model."""
        filters = call.listing.filters
        pool, backend = (
            identifier(filters[name]) if name in filters else None for name in ("pool", "backend")
        )
        model, state = filters.get("model"), filters.get("state")
        rows = [
            row
            for one in queries.list_pools(now=call.now)
            for row in one.deployments
            if pool in (None, row.pool_id)
            and backend in (None, row.backend_id)
            and model in (None, row.slug)
            and state in (None, row.state)
        ]
        return page_by(
            call.listing, rows, key=lambda row: f"{row.slug} {row.public_id}", shown=shown_deployment
        )

    @operation(
        id="createDeployment",
        summary="Deploy a model",
        tag=TAG,
        action="deployment.create",
        scope=ManagementScope.FLEET_WRITE,
        body=NewDeploymentBody,
        answer=DeploymentAnswer,
        status=201,
        raises={
            operations.BackendNotFound: problems.REFUSED,
            operations.ModelNotFound: problems.REFUSED,
            operations.AlreadyDeployed: problems.CONFLICT,
            audit.ReasonMissing: problems.REFUSED,
        },
        body_example={
            "backend": "bkd_01k9zq5v3nf2t8x4m6r7w0y1ab",
            "model": "qwen/qwen3-32b",
            "upstream_model": "Qwen/Qwen3-32B",
            "reason": "Second replica",
        },
    )
    def post(self, call: Call) -> Answer:
        """A model on a backend; it serves at once."""
        body = call.body
        model_id = model_of(slug=body["model"])
        if model_id is None:
            raise operations.ModelNotFound("there is no such model")
        with entry_is_said():
            deployment_id = operations.save_deployment(
                entry=DeploymentEntry(body["backend"], model_id, body["upstream_model"]),
                actor=call.actor,
                reason=body["reason"],
            )
        return Answer(shown_deployment(_find(call, deployment_id)), status=201)


class DeploymentDetail(OperatorEndpoint):
    @operation(
        id="getDeployment",
        summary="Read a deployment",
        tag=TAG,
        action="deployment.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        answer=DeploymentAnswer,
    )
    def get(self, call: Call, deployment: str) -> Answer:
        """One model on one backend, with what it has of the pool now."""
        return Answer(shown_deployment(_find(call, parse_id("deployment", deployment))))

    @operation(
        id="changeDeployment",
        summary="Change a deployment",
        tag=TAG,
        action="deployment.change",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=DeploymentBody,
        answer=DeploymentAnswer,
        raises=_RAISES,
        body_example={"upstream_model": "Qwen/Qwen3-32B-FP8", "reason": "Quantised weights"},
    )
    def put(self, call: Call, deployment: str) -> Answer:
        """The name that the backend knows the model by."""
        found = _find(call, parse_id("deployment", deployment))
        with entry_is_said():
            operations.save_deployment(
                entry=DeploymentEntry(found.backend_id, found.model_id, call.body["upstream_model"]),
                deployment_id=found.id,
                actor=call.actor,
                reason=call.body["reason"],
            )
        return Answer(shown_deployment(_find(call, found.id)))


class DeploymentState(OperatorEndpoint):
    @operation(
        id="setDeploymentState",
        summary="Take a deployment in or out of service",
        tag=TAG,
        action="deployment.state",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=StateBody,
        answer=DeploymentAnswer,
        raises=_RAISES,
        body_example={"state": "DRAINING", "reason": "Moves to another pool"},
    )
    def post(self, call: Call, deployment: str) -> Answer:
        """One model on one backend; gateways follow within a second."""
        deployment_id = parse_id("deployment", deployment)
        operations.set_deployment_state(
            deployment_id=deployment_id,
            state=FleetState(call.body["state"]),
            actor=call.actor,
            reason=call.body["reason"],
        )
        return Answer(shown_deployment(_find(call, deployment_id)))


class Capacities(OperatorEndpoint):
    @operation(
        id="listCapacities",
        summary="List what a deployment has over time",
        tag=TAG,
        action="deployment.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        parameters=Page,
        answer=CapacityPageAnswer,
    )
    def get(self, call: Call, deployment: str) -> Answer:
        """What it has, had and will have: the newest hundred versions, newest first."""
        found = _find(call, parse_id("deployment", deployment))
        rows = queries.capacity_history(deployment_id=found.id, now=call.now)
        return page_of_history(call.listing, rows, key=lambda row: row.public_id, shown=shown_capacity)

    @operation(
        id="setCapacity",
        summary="Set what a deployment has",
        tag=TAG,
        action="deployment.capacity",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=CapacityBody,
        answer=CapacitySetAnswer,
        status=201,
        raises={
            **_RAISES,
            operations.MomentPassed: problems.REFUSED,
            operations.PoolOversold: problems.REFUSED,
        },
        body_example={
            "reserved_ppm": 250000,
            "capacity_tokens_per_s": 9000,
            "input_weight_thousandths": 250,
            "cached_weight_thousandths": 25,
            "output_weight_thousandths": 1000,
            "reason": "Measured in week 48",
        },
    )
    def post(self, call: Call, deployment: str) -> Answer:
        """Its share of the pool, its certified capacity and the weights of tokens, from a moment on. All
        deployments of a pool together have one whole pool at most."""
        deployment_id, body = parse_id("deployment", deployment), call.body
        with entry_is_said():
            version_id = operations.set_capacity(
                deployment_id=deployment_id,
                entry=CapacityEntry(
                    reserved_ppm=body["reserved_ppm"],
                    input_weight=body["input_weight_thousandths"],
                    cached_weight=body["cached_weight_thousandths"],
                    output_weight=body["output_weight_thousandths"],
                    capacity_tokens_per_s=body["capacity_tokens_per_s"],
                ),
                active_from=body.get("active_from"),
                actor=call.actor,
                reason=body["reason"],
                now=call.now,
            )
        content = {"version_id": version_id, "deployment": _find(call, deployment_id)}
        return Answer(CapacitySetAnswer(content).data, status=201)


def _find(call: Call, deployment_id: UUID) -> DeploymentRow:
    """Raises Http404."""
    row = queries.find_deployment(deployment_id=deployment_id, now=call.now)
    if row is None:
        raise Http404
    return row
