"""The web process's own pages: health, metrics, and the ids of requests."""

from django.test import Client

from devstack.testing import Services


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
