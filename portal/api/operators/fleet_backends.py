"""Backends: engines that serve models, their credentials and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.http import Http404

from models_catalog.fleet import operations, queries
from models_catalog.fleet.entries import MAX_CONCURRENCY, MAX_CREDENTIAL_LENGTH
from models_catalog.fleet.operations import BackendEntry
from models_catalog.fleet.queries import BackendRow
from models_catalog.models import Engine, FleetState
from models_catalog.models.fleet import MAX_CONFIGURATION_LENGTH
from portal.api import problems
from portal.api.authentication import secret_store
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import OneOf, Page, PublicId, Strict, Text, Whole
from portal.api.operations import operation
from portal.api.operators.fleet_answers import (
    TAG,
    BackendAnswer,
    BackendPageAnswer,
    StateBody,
    entry_is_said,
    page_by,
)
from portal.api.operators.tenants import reason_field
from portal.api.paging import identifier
from portal.pages.access import parse_id
from tenants.models import ManagementScope
from tenants.operations import audit

PARTS: Final = {"backend": "backend"}


class BackendParameters(Page):
    pool = PublicId(kind="pool", required=False, help_text="Only those of one pool.")
    state = OneOf(choices=FleetState.values, required=False)


class BackendBody(Strict):
    """All of a backend but its code, its pool and its credential."""

    engine = OneOf(choices=Engine.values)
    engine_version = Text(required=False, allow_blank=True, max_length=64)
    base_url = Text(max_length=500, help_text="Where the engine answers, without /v1.")
    max_concurrency = Whole(
        min_value=1, max_value=MAX_CONCURRENCY, help_text="Calls at a time that it serves well."
    )
    configuration = Text(
        required=False,
        allow_blank=True,
        max_length=MAX_CONFIGURATION_LENGTH,
        help_text="Notes for operators. No secrets.",
    )
    reason = reason_field("The audit log keeps it.")


def credential_field(help_text: str, *, required: bool) -> Text:
    return Text(
        required=required,
        allow_blank=True,
        trim_whitespace=False,
        max_length=MAX_CREDENTIAL_LENGTH,
        write_only=True,
        help_text=f"{help_text} It is stored encrypted and never shown again.",
    )


class NewBackendBody(BackendBody):
    pool = PublicId(kind="pool")
    code = Text(max_length=64, help_text="Letters, digits, hyphens and underscores; it stays as it is.")
    credential = credential_field("The bearer token that the engine wants.", required=False)


class CredentialBody(Strict):
    credential = credential_field("The new bearer token; empty: none any more.", required=True)
    reason = reason_field("The audit log keeps it.")


_RAISES: Final = {
    operations.BackendNotFound: problems.NOT_FOUND,
    audit.ReasonMissing: problems.REFUSED,
}
_EXAMPLE: Final = {
    "engine": "vllm",
    "engine_version": "0.11.2",
    "base_url": "http://sglang-1.hall-a.example:8000",
    "max_concurrency": 64,
    "configuration": "--tensor-parallel-size 8",
}


class BackendList(OperatorEndpoint):
    @operation(
        id="listBackends",
        summary="List backends",
        tag=TAG,
        action="backend.list",
        scope=ManagementScope.FLEET_READ,
        parameters=BackendParameters,
        answer=BackendPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Backends by code, with what is deployed on them."""
        state = call.listing.filters.get("state")
        rows = [row for row in backends_of(call) if state in (None, row.state)]
        return page_by(call.listing, rows, key=lambda row: row.code, shown=_shown)

    @operation(
        id="createBackend",
        summary="Add a backend",
        tag=TAG,
        action="backend.create",
        scope=ManagementScope.FLEET_WRITE,
        body=NewBackendBody,
        answer=BackendAnswer,
        status=201,
        raises={
            operations.PoolNotFound: problems.REFUSED,
            operations.CodeTaken: problems.CONFLICT,
            audit.ReasonMissing: problems.REFUSED,
        },
        body_example={
            "pool": "pool_01k9zq5v3nf2t8x4m6r7w0y1ab",
            "code": "h100-a-1",
            **_EXAMPLE,
            "reason": "First of hall A",
        },
    )
    def post(self, call: Call) -> Answer:
        """A backend in a pool. It serves as soon as a model is deployed on it."""
        body = call.body
        with entry_is_said():
            backend_id = operations.save_backend(
                entry=_entry(body, pool_id=body["pool"], code=body["code"]),
                credential=body.get("credential"),
                secrets=secret_store(),
                actor=call.actor,
                reason=body["reason"],
            )
        return Answer(_shown(find_backend(call, backend_id)), status=201)


class BackendDetail(OperatorEndpoint):
    @operation(
        id="getBackend",
        summary="Read a backend",
        tag=TAG,
        action="backend.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        answer=BackendAnswer,
    )
    def get(self, call: Call, backend: str) -> Answer:
        """One backend, with what is deployed on it."""
        return Answer(_shown(find_backend(call, parse_id("backend", backend))))

    @operation(
        id="changeBackend",
        summary="Change a backend",
        tag=TAG,
        action="backend.change",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=BackendBody,
        answer=BackendAnswer,
        raises=_RAISES,
        body_example={**_EXAMPLE, "engine_version": "0.12.0", "reason": "Engine updated"},
    )
    def put(self, call: Call, backend: str) -> Answer:
        """All of it but its code, its pool and its credential."""
        found = find_backend(call, parse_id("backend", backend))
        with entry_is_said():
            operations.save_backend(
                entry=_entry(call.body, pool_id=found.pool_id, code=found.code),
                backend_id=found.id,
                secrets=secret_store(),
                actor=call.actor,
                reason=call.body["reason"],
            )
        return Answer(_shown(find_backend(call, found.id)))


class BackendCredential(OperatorEndpoint):
    @operation(
        id="setBackendCredential",
        summary="Replace a backend's credential",
        tag=TAG,
        action="backend.change",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=CredentialBody,
        answer=BackendAnswer,
        raises=_RAISES,
        body_example={"credential": "example-token", "reason": "Yearly rotation"},
    )
    def post(self, call: Call, backend: str) -> Answer:
        """It counts from the next call on. The stored one is shown to nobody."""
        backend_id = parse_id("backend", backend)
        with entry_is_said():
            operations.set_credential(
                backend_id=backend_id,
                credential=call.body["credential"],
                secrets=secret_store(),
                actor=call.actor,
                reason=call.body["reason"],
            )
        return Answer(_shown(find_backend(call, backend_id)))


class BackendState(OperatorEndpoint):
    @operation(
        id="setBackendState",
        summary="Take a backend in or out of service",
        tag=TAG,
        action="backend.state",
        scope=ManagementScope.FLEET_WRITE,
        parts=PARTS,
        body=StateBody,
        answer=BackendAnswer,
        raises=_RAISES,
        body_example={"state": "DRAINING", "reason": "Driver update"},
    )
    def post(self, call: Call, backend: str) -> Answer:
        """Gateways follow within a second."""
        backend_id = parse_id("backend", backend)
        operations.set_backend_state(
            backend_id=backend_id,
            state=FleetState(call.body["state"]),
            actor=call.actor,
            reason=call.body["reason"],
        )
        return Answer(_shown(find_backend(call, backend_id)))


def backends_of(call: Call) -> list[BackendRow]:
    """Of one pool when the filters name one."""
    pool = call.listing.filters.get("pool")
    if pool is None:
        pools = queries.list_pools(now=call.now)
    else:
        found = queries.fleet_of_pool(pool_id=identifier(pool), now=call.now)
        pools = [found] if found else []
    return [backend for row in pools for backend in row.backends]


def _entry(body: Mapping[str, Any], *, pool_id: UUID, code: str) -> BackendEntry:
    return BackendEntry(
        pool_id=pool_id,
        code=code,
        engine=body["engine"],
        engine_version=body.get("engine_version", ""),
        base_url=body["base_url"].rstrip("/"),
        max_concurrency=body["max_concurrency"],
        configuration=body.get("configuration", "").replace("\r\n", "\n"),
    )


def find_backend(call: Call, backend_id: UUID) -> BackendRow:
    """Raises Http404."""
    row = queries.find_backend(backend_id=backend_id, now=call.now)
    if row is None:
        raise Http404
    return row


def _shown(row: BackendRow) -> Any:
    return BackendAnswer(row).data
