"""Finding an organization by what people call it."""

import pytest

from portal.kit.ids import uuid7
from tenants.models import Membership, Role, User
from tenants.queries import find_tenants
from tenants.scope import ScopeMissing, role_scope, tenant_scope
from tests.factories import make_tenant


def test_an_organization_is_found_by_id_name_and_member(database: None) -> None:
    tenant = make_tenant(granted=None)
    address = f"{uuid7().hex}@customer.example"
    with role_scope("auth"):
        user = User.objects.create_user(address)
        Membership.objects.create(tenant_id=tenant.id, user=user, role=Role.OWNER)
        (by_id,) = find_tenants(text=tenant.public_id)
        assert find_tenants(text=by_id.name) == [by_id]
        assert find_tenants(text=address.upper()) == [by_id]
        assert find_tenants(text="nobody") == []
        assert by_id in find_tenants(text="") or len(find_tenants(text="")) == 50
    assert by_id.public_id == tenant.public_id


def test_a_tenant_finds_only_itself(database: None) -> None:
    tenant, other = make_tenant(granted=None), make_tenant(granted=None)
    with tenant_scope(tenant.id):
        assert [found.id for found in find_tenants(text="")] == [tenant.id]
        assert find_tenants(text=other.public_id) == []


def test_nothing_is_found_without_a_scope(database: None) -> None:
    with pytest.raises(ScopeMissing):
        find_tenants(text="")
