"""The first tenant wall: whose rows a piece of code may see, said once, at the door.

A scope names a database role and, for the tenant role, one organization. Managers of tenant-owned
models refuse to query without a scope, and the router sends every query to the connection of the
scope's role, where row-level security is the second wall. The scope comes from the URL or the key
of a call, never from a user's current organization.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connections, models, transaction

ModelT = TypeVar("ModelT", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Scope:
    """A database role and, for the tenant role, the one organization it may see."""

    role: str
    tenant_id: UUID | None = None

    @property
    def alias(self) -> str:
        """The connection of the scope's role. Sessions and sign-in work on the default connection; where that
        is the auth role's, a scope of this role shares it, so that what they do together commits together."""
        return "default" if self.role == "auth" == settings.DATABASE_ROLE else self.role


class ScopeMissing(RuntimeError):
    """A tenant-owned table was queried outside every scope."""


class ScopeConflict(RuntimeError):
    """A scope of one organization was opened inside the scope of another."""


_current: ContextVar[Scope | None] = ContextVar("tenants_scope", default=None)
# Whose rows the tenant connection's open transaction shows. A scope of another role in between does not
# end that transaction, so this is remembered apart from the current scope.
_open_tenant: ContextVar[UUID | None] = ContextVar("tenants_open_tenant", default=None)


def current_scope() -> Scope | None:
    return _current.get()


def scope_alias() -> str:
    """The connection of the open scope. Errors: ScopeMissing outside every scope."""
    scope = _current.get()
    if scope is None:
        raise ScopeMissing("the database was asked outside every scope")
    return scope.alias


@contextmanager
def tenant_scope(tenant_id: UUID) -> Iterator[None]:
    """One transaction as the tenant role that sees the rows of `tenant_id` and of nobody else.

    The setting is local to the transaction, so a pooled connection forgets it when it ends.
    Errors: ScopeConflict inside the scope of another organization.
    """
    if _open_tenant.get() not in (None, tenant_id):
        raise ScopeConflict("a scope of another organization is open")
    token = _current.set(Scope("tenant", tenant_id))
    open_token = _open_tenant.set(tenant_id)
    try:
        with transaction.atomic(using="tenant"):
            with connections["tenant"].cursor() as cursor:
                cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
            yield
    finally:
        _open_tenant.reset(open_token)
        _current.reset(token)


@contextmanager
def role_scope(role: str) -> Iterator[None]:
    """A scope that crosses organizations, as the operator, auth, dataplane, ingest or owner role.

    What such a role may touch is decided by its grants and policies in the database.
    """
    if role not in {"operator", "auth", "dataplane", "ingest", "owner"}:
        raise ValueError(f"no scope crosses organizations as {role!r}")
    token = _current.set(Scope(role))
    try:
        yield
    finally:
        _current.reset(token)


class ScopeRouter:
    """Sends every query to the connection of the current scope's role."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        scope = _current.get()
        return scope.alias if scope else None

    db_for_write = db_for_read

    def allow_relation(self, *_objects: models.Model, **hints: Any) -> bool:
        # Every alias is the same database under another role.
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db in {"default", "owner"}


class TenantManager(models.Manager[ModelT], Generic[ModelT]):
    """Fails closed: without a scope it raises, in a tenant's scope it sees that tenant only."""

    # The field that names the organization; the Tenant model itself uses its primary key.
    tenant_field = "tenant_id"

    def get_queryset(self) -> models.QuerySet[ModelT]:
        scope = _current.get()
        if scope is None:
            raise ScopeMissing(f"{self.model.__name__} was queried outside every scope")
        queryset = super().get_queryset()
        if scope.tenant_id is not None:
            return queryset.filter(**{self.tenant_field: scope.tenant_id})
        return queryset


class TenantSelfManager(TenantManager[ModelT], Generic[ModelT]):
    tenant_field = "id"
