"""Commissions a deployment: measures it under rising load, directly at its backend, and stores the curve.

The calls are ours and nobody's: no organization is charged, and no request is written down. The backend's own
counters include them; the curve says how many tokens they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from models_catalog.engines import ADAPTERS
from models_catalog.fleet import operations
from models_catalog.fleet.commission.calls import Target
from models_catalog.fleet.commission.sweep import Measured, Plan, measure
from models_catalog.fleet.measured import CurveRow, newest_curves
from models_catalog.fleet.probe import probe_backend
from models_catalog.models import Deployment
from portal.kit.secrets import SecretStore
from quotas.metering.queries.fleet_health import backend_health
from tenants.operations import audit


class LiveCalls(RuntimeError):
    """The backend has calls of organizations, which the measurement would slow down. `count` of them."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the backend has {count} calls in flight")
        self.count = count


@dataclass(frozen=True, slots=True)
class Commissioned:
    """What was measured, under which id it is stored, and the curve before it, if there was one."""

    curve_id: UUID
    measured: Measured
    engine_version: str
    before: CurveRow | None


def commission(
    *,
    deployment_id: UUID,
    plan: Plan,
    secrets: SecretStore,
    actor: audit.Actor,
    reason: str,
    now: datetime,
    say: Callable[[str], None],
    note: str = "",
    force: bool = False,
) -> Commissioned:
    """Measure and store, in the scope of an operator and outside of any transaction.

    say: told each step. force: also while the backend serves calls.
    Errors: DeploymentNotFound, LiveCalls, CommissionFailed, SecretError, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    deployment = Deployment.objects.select_related("backend").filter(id=deployment_id).first()
    if deployment is None:
        raise operations.DeploymentNotFound("no such deployment")
    backend = deployment.backend
    if not force:
        health = backend_health(now=now).get(backend.id)
        if health is not None and health.in_flight:
            raise LiveCalls(health.in_flight)
    before = newest_curves(deployment_ids=[deployment_id]).get(deployment_id)
    credential = secrets.decrypt(backend.credential_encrypted) if backend.credential_encrypted else None
    version = probe_backend(backend_id=backend.id, secrets=secrets).version or backend.engine_version
    say(f"{backend.code}: {backend.engine} {version}".rstrip())
    target = Target(
        base_url=backend.base_url.rstrip("/"),
        engine=ADAPTERS[backend.engine],
        upstream_model=deployment.upstream_model,
        credential=credential,
    )
    measured = asyncio.run(measure(target, plan, say=say))
    curve_id = operations.record_curve(
        deployment_id=deployment_id,
        measured=measured,
        limits=plan.limits,
        engine_version=version,
        actor=actor,
        reason=reason,
        now=now,
        note=note,
    )
    return Commissioned(curve_id, measured, version, before)
