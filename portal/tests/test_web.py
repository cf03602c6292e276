"""The web process's own pages: health, landing, and the operators' door."""

import secrets

import pytest
from django.test import Client

from devstack.testing import Services
from quotas.operations import open_tenant
from tenants.models import User
from tenants.scope import role_scope


@pytest.fixture
def staff() -> tuple[User, str]:
    password = secrets.token_urlsafe(16)
    with role_scope("operator"):
        user = User.objects.create_user(
            f"{secrets.token_hex(8)}@operators.example", password, is_staff=True, is_superuser=True
        )
    return user, password


def test_health_and_readiness_are_answered(database: None) -> None:
    client = Client()
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "database": "ok", "valkey": "ok"}


def test_pages_stay_ready_without_valkey(database: None, services: Services) -> None:
    services.valkey.stop()
    try:
        ready = Client().get("/readyz")
    finally:
        services.valkey.start()
    assert ready.status_code == 200
    assert ready.json()["valkey"] == "unreachable"


def test_the_landing_page_carries_a_request_id(database: None) -> None:
    page = Client().get("/")
    assert page.status_code == 200
    assert page["x-request-id"].startswith("req_")
    assert b"meter you can trust" in page.content


def test_metrics_are_for_loopback_only_without_a_token(database: None) -> None:
    assert Client(REMOTE_ADDR="127.0.0.1").get("/metrics").status_code == 200
    assert Client(REMOTE_ADDR="10.1.2.3").get("/metrics").status_code == 404


def test_an_operator_signs_in_and_sees_every_organization(database: None, staff: tuple[User, str]) -> None:
    with role_scope("operator"):
        open_tenant(name="Seen by operators", currency="USD", currencies=("USD",), owner_id=None)
    client = Client()
    assert client.login(email=staff[0].email, password=staff[1])
    page = client.get("/admin/tenants/tenant/")
    assert page.status_code == 200
    assert b"Seen by operators" in page.content


def test_nobody_else_enters_the_operators_area(database: None) -> None:
    with role_scope("operator"):
        user = User.objects.create_user(f"{secrets.token_hex(8)}@customer.example", "a long password")
    client = Client()
    client.force_login(user)
    page = client.get("/admin/tenants/tenant/")
    assert page.status_code == 302
    assert "/admin/login/" in page["location"]


def test_the_admin_never_shows_a_digest_or_a_credential(database: None, staff: tuple[User, str]) -> None:
    client = Client()
    client.force_login(staff[0])
    for address in ("/admin/tenants/apikey/", "/admin/models_catalog/servingbackend/"):
        page = client.get(address)
        assert page.status_code == 200
        assert b"digest" not in page.content
        assert b"credential" not in page.content
