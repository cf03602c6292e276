"""The first wall: without a scope nothing is queried, and a scope is one organization's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from django.db import connections, models

from models_catalog.models import ModelGrant
from quotas.models import Hold, InferenceRequest, LedgerEntry, Wallet
from tenants.models import ApiKey, Membership, Tenant
from tenants.scope import (
    Scope,
    ScopeConflict,
    ScopeMissing,
    TenantManager,
    current_scope,
    role_scope,
    tenant_scope,
)
from tests.factories import TenantFixture, make_tenant

OWNED: tuple[type[models.Model], ...] = (
    Tenant,
    Membership,
    ApiKey,
    ModelGrant,
    Wallet,
    LedgerEntry,
    InferenceRequest,
    Hold,
)


@pytest.fixture
def two(database: None) -> Iterator[tuple[TenantFixture, TenantFixture]]:
    yield make_tenant(), make_tenant()
    assert current_scope() is None


@pytest.mark.parametrize("model", OWNED)
def test_a_query_without_a_scope_is_refused(model: type[models.Model], database: None) -> None:
    manager = model._default_manager
    assert isinstance(manager, TenantManager)
    for query in (manager.all, manager.count, manager.first, manager.exists):
        with pytest.raises(ScopeMissing, match=model.__name__):
            query()


def test_every_model_with_a_tenant_has_the_manager_that_refuses() -> None:
    from django.apps import apps

    owned = [
        model
        for model in apps.get_models()
        if any(field.name == "tenant" and not field.null for field in model._meta.concrete_fields)
    ]
    assert len(owned) > 8
    assert [model for model in owned if not isinstance(model._default_manager, TenantManager)] == []


def test_in_a_tenants_scope_only_its_rows_exist(two: tuple[TenantFixture, TenantFixture]) -> None:
    mine, theirs = two
    with tenant_scope(mine.id):
        assert [tenant.id for tenant in Tenant.objects.all()] == [mine.id]
        assert [key.id for key in ApiKey.objects.all()] == [mine.key.id]
        assert not Wallet.objects.filter(tenant_id=theirs.id).exists()
        assert Wallet.objects.get().tenant_id == mine.id
        # Past the manager, the database's own wall stands.
        with connections["tenant"].cursor() as cursor:
            cursor.execute("SELECT tenant_id FROM quotas_wallet")
            assert cursor.fetchall() == [(mine.id,)]


def test_a_scope_of_another_tenant_is_refused_inside(two: tuple[TenantFixture, TenantFixture]) -> None:
    mine, theirs = two
    with tenant_scope(mine.id):
        with pytest.raises(ScopeConflict), tenant_scope(theirs.id):
            pytest.fail("the scope of another organization was opened")
        with tenant_scope(mine.id):
            assert Wallet.objects.get().tenant_id == mine.id
        # Neither the refused scope nor the end of the inner one has changed anything.
        assert current_scope() == Scope("tenant", mine.id)
        assert Wallet.objects.get().tenant_id == mine.id


def test_another_tenant_is_refused_also_behind_an_operators_scope(
    two: tuple[TenantFixture, TenantFixture],
) -> None:
    """The outer transaction is still open, and would show the inner tenant's rows afterwards."""
    with (
        tenant_scope(two[0].id),
        role_scope("operator"),
        pytest.raises(ScopeConflict),
        tenant_scope(two[1].id),
    ):
        raise AssertionError("the scope was opened")


def test_a_scope_ends_also_with_an_error(two: tuple[TenantFixture, TenantFixture]) -> None:
    with pytest.raises(ZeroDivisionError), tenant_scope(two[0].id):
        raise ZeroDivisionError
    assert current_scope() is None
    with connections["tenant"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM quotas_wallet")
        assert cursor.fetchone() == (0,)


def test_the_operators_scope_crosses_organizations(two: tuple[TenantFixture, TenantFixture]) -> None:
    ids = [tenant.id for tenant in two]
    with role_scope("operator"):
        assert Wallet.objects.filter(tenant_id__in=ids).count() == 2


@pytest.mark.parametrize("role", ["tenant", "postgres", ""])
def test_only_the_crossing_roles_have_a_scope_of_their_own(role: str) -> None:
    with pytest.raises(ValueError, match="crosses organizations"), role_scope(role):
        pytest.fail("the scope was opened")


def test_a_scope_belongs_to_its_own_thread_and_task(two: tuple[TenantFixture, TenantFixture]) -> None:
    seen: list[Scope | None] = []

    async def concurrent() -> None:
        async def with_scope() -> None:
            with role_scope("operator"):
                await asyncio.sleep(0)
                seen.append(current_scope())

        async def without_scope() -> None:
            await asyncio.sleep(0)
            seen.append(current_scope())

        await asyncio.gather(with_scope(), without_scope())

    with tenant_scope(two[0].id):
        thread = threading.Thread(target=lambda: seen.append(current_scope()))
        thread.start()
        thread.join(timeout=10)
    asyncio.run(concurrent())
    assert seen == [None, Scope("operator"), None]
