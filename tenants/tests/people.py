"""People and organizations for tests, with names of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connections

from portal.kit.ids import uuid7
from portal.kit.secrets import SecretStore
from tenants.models import Membership, Role, User
from tenants.scope import role_scope
from tests.factories import TenantFixture, make_tenant

ResultT = TypeVar("ResultT")


def store() -> SecretStore:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


def make_user(email: str | None = None) -> User:
    with role_scope("auth"):
        return User.objects.create_user(email or f"{uuid7().hex}@people.example")


def add_member(tenant_id: UUID, role: Role = Role.DEVELOPER, user: User | None = None) -> Membership:
    """A member who got there by an operator's hand."""
    with role_scope("operator"):
        return Membership.objects.create(tenant_id=tenant_id, user=user or make_user(), role=role)


def make_organization() -> tuple[TenantFixture, Membership]:
    """An organization and its owner."""
    tenant = make_tenant(granted=None)
    return tenant, add_member(tenant.id, Role.OWNER)


def at_once(calls: Sequence[Callable[[], ResultT]], *, timeout_s: float = 30) -> list[ResultT | Exception]:
    """Run all calls at the same time, each in a thread of its own; what each answered or raised, in order."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], ResultT]) -> ResultT | Exception:
        start.wait(timeout_s)
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout_s) for future in [pool.submit(run, call) for call in calls]]
