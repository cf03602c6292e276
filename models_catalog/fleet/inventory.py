"""Writes of the fleet. Each says who did it and why, and the audit log keeps what was there before.

Nothing of the fleet is removed: calls refer to it for ever. What is no longer used is disabled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, models, transaction

from models_catalog.fleet.entries import (
    AbilitiesEntry,
    BackendEntry,
    CredentialNeeded,
    DeploymentEntry,
    PoolEntry,
    check_credential,
    server_of_url,
    values_of,
)
from models_catalog.models import CatalogModel, Deployment, FleetState, ServingBackend, ServingPool
from portal.kit.ids import PREFIXES, public_id
from portal.kit.secrets import SecretError, SecretStore
from tenants.operations import audit
from tenants.scope import scope_alias

RowT = TypeVar("RowT", bound=models.Model)


class PoolNotFound(LookupError):
    """No such pool."""


class BackendNotFound(LookupError):
    """No such backend."""


class DeploymentNotFound(LookupError):
    """No such deployment."""


class ModelNotFound(LookupError):
    """No such listed model."""


class CodeTaken(ValueError):
    """Another pool, or another backend, has this code."""


class AlreadyDeployed(ValueError):
    """The backend has a deployment of this model."""


class CodeFixed(ValueError):
    """The code, the pool, the model or the backend of what exists was to be changed."""


def save_pool(*, entry: PoolEntry, actor: audit.Actor, reason: str, pool_id: UUID | None = None) -> UUID:
    """Make a pool, or with `pool_id` change one; its id. What is the same already is not written again.

    Errors: InvalidEntry, CodeTaken, CodeFixed, PoolNotFound, ReasonMissing.
    """
    entry.check()
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        if pool_id is None:
            pool = ServingPool(**values_of(entry))
            _insert(pool, CodeTaken("another pool has this code"))
            _record(actor, "pool.create", "pool", pool.id, None, values_of(entry), reason)
            return pool.id
        pool = locked_pool(pool_id)
        _refuse_other(pool.code, entry.code)
        _change(pool, values_of(entry), actor, "pool", reason)
        return pool.id


def save_backend(
    *,
    entry: BackendEntry,
    secrets: SecretStore,
    actor: audit.Actor,
    reason: str,
    backend_id: UUID | None = None,
    credential: str | None = None,
) -> UUID:
    """Make a backend, or with `backend_id` change one; its id. A new one serves as soon as a model is on it.

    credential: what it wants as bearer token, stored encrypted and never shown again; None keeps the stored
    one, an empty text removes it. The audit log says only that it changed. The stored one is not kept for
    another server: whoever names one could read it there.
    Errors: InvalidEntry, CredentialNeeded, CodeTaken, CodeFixed, PoolNotFound, BackendNotFound,
    ReasonMissing.
    """
    entry.check()
    if credential is not None:
        check_credential(credential)
    reason = audit.checked_reason(reason)
    values = values_of(entry)
    with transaction.atomic(using=scope_alias()):
        if backend_id is None:
            pool = ServingPool.objects.filter(id=entry.pool_id).first()
            if pool is None:
                raise PoolNotFound("no such pool")
            backend = ServingBackend(
                **values, credential_encrypted=secrets.encrypt(credential) if credential else ""
            )
            _insert(backend, CodeTaken("another backend has this code"))
            after = _shown(values) | {"pool": pool.code, "credential": "set" if credential else "none"}
            _record(actor, "backend.create", "backend", backend.id, None, after, reason)
            return backend.id
        backend = _locked_backend(backend_id)
        _refuse_other((backend.code, backend.pool_id), (entry.code, entry.pool_id))
        is_elsewhere = server_of_url(backend.base_url) != server_of_url(entry.base_url)
        if credential is None and backend.credential_encrypted and is_elsewhere:
            raise CredentialNeeded
        if credential is None or credential == _credential_of(backend, secrets):
            _change(backend, values, actor, "backend", reason)
            return backend.id
        before = {"credential": "set" if backend.credential_encrypted else "none"}
        after = {"credential": "changed" if credential else "removed"}
        values["credential_encrypted"] = secrets.encrypt(credential) if credential else ""
        _change(backend, values, actor, "backend", reason, hidden=(before, after))
        return backend.id


def set_credential(
    *, backend_id: UUID, credential: str, secrets: SecretStore, actor: audit.Actor, reason: str
) -> None:
    """Replace the credential of a backend, or with an empty text remove it.

    Errors: InvalidEntry, BackendNotFound, ReasonMissing.
    """
    with transaction.atomic(using=scope_alias()):
        backend = _locked_backend(backend_id)
        entry = BackendEntry(
            pool_id=backend.pool_id,
            code=backend.code,
            engine=backend.engine,
            engine_version=backend.engine_version,
            base_url=backend.base_url,
            max_concurrency=backend.max_concurrency,
            configuration=backend.configuration,
        )
        save_backend(
            entry=entry,
            secrets=secrets,
            actor=actor,
            reason=reason,
            backend_id=backend_id,
            credential=credential,
        )


def set_backend_state(*, backend_id: UUID, state: FleetState, actor: audit.Actor, reason: str) -> None:
    """ACTIVE: it serves. DRAINING: it gets no new calls, those in flight end. DISABLED: nor is it watched.

    Every gateway follows within a second. Errors: BackendNotFound, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        backend = _locked_backend(backend_id)
        _change(backend, {"state": FleetState(state).value}, actor, "backend", reason, verb="state")


def save_deployment(
    *, entry: DeploymentEntry, actor: audit.Actor, reason: str, deployment_id: UUID | None = None
) -> UUID:
    """Deploy a model on a backend, or with `deployment_id` change the name that the backend knows it by.

    Errors: InvalidEntry, AlreadyDeployed, CodeFixed, BackendNotFound, ModelNotFound, DeploymentNotFound,
    ReasonMissing.
    """
    entry.check()
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        if deployment_id is None:
            backend = ServingBackend.objects.filter(id=entry.backend_id).first()
            model = CatalogModel.objects.filter(id=entry.model_id).first()
            if backend is None:
                raise BackendNotFound("no such backend")
            if model is None:
                raise ModelNotFound("no such model")
            deployment = Deployment(**values_of(entry))
            _insert(deployment, AlreadyDeployed("the backend has a deployment of this model"))
            after = {"model": model.slug, "backend": backend.code, "upstream_model": entry.upstream_model}
            _record(actor, "deployment.create", "deployment", deployment.id, None, after, reason)
            return deployment.id
        deployment = locked_deployment(deployment_id)
        _refuse_other(
            (deployment.backend_id, deployment.model_id),
            (entry.backend_id, entry.model_id),
        )
        _change(deployment, {"upstream_model": entry.upstream_model}, actor, "deployment", reason)
        return deployment.id


def set_abilities(*, deployment_id: UUID, entry: AbilitiesEntry, actor: audit.Actor, reason: str) -> None:
    """What one model on a backend can do: calls that need more go elsewhere. Every gateway follows within a
    second. Errors: InvalidEntry, DeploymentNotFound, ReasonMissing.
    """
    entry.check()
    reason = audit.checked_reason(reason)
    values = values_of(entry)
    if entry.capabilities is not None:
        values["capabilities"] = sorted(set(entry.capabilities))
    with transaction.atomic(using=scope_alias()):
        deployment = locked_deployment(deployment_id)
        _change(deployment, values, actor, "deployment", reason, verb="abilities")


def set_deployment_state(*, deployment_id: UUID, state: FleetState, actor: audit.Actor, reason: str) -> None:
    """As `set_backend_state`, for one model on a backend. Errors: DeploymentNotFound, ReasonMissing."""
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        deployment = locked_deployment(deployment_id)
        _change(deployment, {"state": FleetState(state).value}, actor, "deployment", reason, verb="state")


def locked_pool(pool_id: UUID) -> ServingPool:
    """The pool, for whoever changes it or what it costs, one after the other. Errors: PoolNotFound."""
    pool = ServingPool.objects.select_for_update(no_key=True).filter(id=pool_id).first()
    if pool is None:
        raise PoolNotFound("no such pool")
    return pool


def locked_deployment(deployment_id: UUID) -> Deployment:
    """The deployment, for whoever changes it or what it has. Errors: DeploymentNotFound."""
    deployment = (
        Deployment.objects.select_for_update(no_key=True, of=("self",))
        .select_related("backend__pool", "model")
        .filter(id=deployment_id)
        .first()
    )
    if deployment is None:
        raise DeploymentNotFound("no such deployment")
    return deployment


def _locked_backend(backend_id: UUID) -> ServingBackend:
    backend = ServingBackend.objects.select_for_update(no_key=True).filter(id=backend_id).first()
    if backend is None:
        raise BackendNotFound("no such backend")
    return backend


def _refuse_other(held: object, wanted: object) -> None:
    if held != wanted:
        raise CodeFixed("what it is called and where it belongs stays as it is; make a new one")


def _insert(row: models.Model, taken: Exception) -> None:
    """Errors: `taken` when there is such a row already."""
    try:
        with transaction.atomic(using=scope_alias()):
            row.save(force_insert=True)
    except IntegrityError as error:
        if getattr(error.__cause__, "sqlstate", None) == "23505":
            raise taken from None
        raise


def _change(
    row: RowT,
    values: Mapping[str, Any],
    actor: audit.Actor,
    kind: str,
    reason: str,
    *,
    verb: str = "change",
    hidden: tuple[dict[str, str], dict[str, str]] | None = None,
) -> None:
    """Write the fields that differ, and say so in the audit log. hidden: words for what it must not show."""
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changed:
        return
    before = _shown({name: getattr(row, name) for name in changed})
    after = _shown(changed)
    if hidden is not None:
        before, after = before | hidden[0], after | hidden[1]
    for name, value in changed.items():
        setattr(row, name, value)
    row.save(update_fields=list(changed))
    _record(actor, f"{kind}.{verb}", kind, row.pk, before, after, reason)


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log may hold of a row."""
    return {
        name: value
        for name, value in values.items()
        if name != "credential_encrypted" and not isinstance(value, UUID)
    }


def _record(
    actor: audit.Actor,
    action: str,
    kind: str,
    row_id: UUID,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
    reason: str,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        target=public_id(PREFIXES[kind], row_id),
        before=before,
        after=after,
        reason=reason,
    )


def _credential_of(backend: ServingBackend, secrets: SecretStore) -> str | None:
    """The stored credential, or None when it cannot be opened, so that another replaces it."""
    if not backend.credential_encrypted:
        return ""
    try:
        return secrets.decrypt(backend.credential_encrypted)
    except SecretError:
        return None
