"""API keys: shown once, rotated with an overlap, revoked for good."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connections, transaction

from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore, parse_api_key
from tenants import operations
from tenants.models import ApiKey
from tenants.scope import role_scope, tenant_scope
from tests.factories import TenantFixture, make_tenant


def store() -> SecretStore:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


def test_only_a_digest_of_the_secret_is_stored(tenant: TenantFixture) -> None:
    secret = parse_api_key(tenant.key.token).secret
    with role_scope("operator"):
        key = ApiKey.objects.get(id=tenant.key.id)
    assert bytes(key.digest) == store().digest(key.pepper_number, secret)
    assert secret not in str(key.__dict__)
    assert tenant.key.token.endswith(key.secret_hint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"expires_at": utc_now() - timedelta(days=1)}, "expiry"),
        ({"labels": {f"l{number}": "" for number in range(17)}}, "labels"),
        ({"labels": {"x" * 65: ""}}, "labels"),
    ],
)
def test_a_key_with_wrong_options_is_refused(
    tenant: TenantFixture, options: dict[str, Any], message: str
) -> None:
    wanted: dict[str, Any] = {"name": "key", **options}
    with tenant_scope(tenant.id), pytest.raises(operations.InvalidKeyOptions, match=message):
        operations.create_api_key(tenant_id=tenant.id, secrets=store(), now=utc_now(), **wanted)


def test_a_rotated_key_goes_on_for_the_overlap_only(tenant: TenantFixture) -> None:
    now = utc_now()
    with tenant_scope(tenant.id):
        new = operations.rotate_api_key(
            tenant_id=tenant.id, key_id=tenant.key.id, secrets=store(), now=now, overlap_s=60
        )
        old = ApiKey.objects.get(id=tenant.key.id)
        successor = ApiKey.objects.get(id=new.id)
    assert old.expires_at == now + timedelta(seconds=60)
    assert (successor.rotated_from_id, successor.name, successor.expires_at) == (old.id, old.name, None)


def test_a_key_is_rotated_once(tenant: TenantFixture) -> None:
    def rotate() -> operations.IssuedKey:
        return operations.rotate_api_key(
            tenant_id=tenant.id,
            key_id=tenant.key.id,
            secrets=store(),
            now=utc_now(),
            overlap_s=60,
        )

    with tenant_scope(tenant.id):
        rotate()
        with pytest.raises(operations.KeyNotFound):
            rotate()


def test_a_revoked_key_stays_revoked(tenant: TenantFixture) -> None:
    with tenant_scope(tenant.id):
        operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())
        operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())
    with (
        tenant_scope(tenant.id),
        pytest.raises(IntegrityError, match="stays revoked"),
        transaction.atomic(using="tenant"),
    ):
        ApiKey.objects.filter(id=tenant.key.id).update(revoked_at=None)


def test_a_stranger_can_neither_rotate_nor_revoke(tenant: TenantFixture) -> None:
    stranger = make_tenant(granted=None)
    with tenant_scope(stranger.id):
        with pytest.raises(operations.KeyNotFound):
            operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())
        with pytest.raises(operations.KeyNotFound):
            operations.rotate_api_key(
                tenant_id=tenant.id,
                key_id=tenant.key.id,
                secrets=store(),
                now=utc_now(),
                overlap_s=0,
            )


def test_the_secret_of_a_key_never_changes_even_for_the_owner(tenant: TenantFixture) -> None:
    with (
        pytest.raises(IntegrityError, match="never change"),
        transaction.atomic(using="owner"),
        connections["owner"].cursor() as cursor,
    ):
        cursor.execute("UPDATE tenants_apikey SET digest = 'x' WHERE id = %s", [tenant.key.id])
