"""Whatever goes wrong is answered as problem details, with nothing in them that is nobody's business."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client

from portal.api.bodies import MAX_BODY_BYTES
from portal.api.tests.stage import open_stage, problem_of, program
from tenants import management_queries

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/keys/", "/api/v1/", "/api/v1/keys/a/b/c", "/api/"]
)
def test_an_address_that_is_none(path: str) -> None:
    address = f"/api/v1/{path}" if path != "../" else "/api/"
    problem_of(Client().get(address), 404, "not-found")
    problem_of(Client().post(address), 404, "not-found")


def test_methods_and_media_types() -> None:
    stage = open_stage()
    answer = stage.program.call("DELETE", "/keys")
    problem_of(answer, 405, "method-not-allowed")
    assert answer["Allow"] == "GET, HEAD, POST"
    problem_of(stage.program.call("OPTIONS", "/keys"), 405, "method-not-allowed")
    problem_of(stage.program.get("/keys", headers={"Accept": "text/html"}), 406, "not-acceptable")
    assert stage.program.get("/keys", headers={"Accept": "text/html, */*;q=0.1"}).status_code == 200
    headers = {"Authorization": f"Bearer {stage.key.token}"}
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        answer = Client().generic(
            "POST", "/api/v1/keys", b"name=x", content_type=content_type, headers=headers
        )
        problem_of(answer, 415, "unsupported-media-type")
    assert stage.program.call("HEAD", "/keys").content == b""


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]x",
        b'{"name": NaN}',
        b'{"name": "a", "name": "b"}',
        b"\xff\xfe",
        b"[" * 50_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_body_that_is_no_json(body: bytes) -> None:
    problem_of(open_stage().program.post("/keys", body), 400, "malformed-body")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"5", b"null", b"true"])
def test_a_body_that_is_no_object(body: bytes) -> None:
    problem_of(open_stage().program.post("/keys", body), 400, "invalid-request")


def test_a_body_has_an_end() -> None:
    stage = open_stage()
    problem_of(stage.program.post("/keys", b" " * (MAX_BODY_BYTES + 1)), 413, "body-too-large")
    problem_of(stage.program.post("/keys", b" " * MAX_BODY_BYTES), 400, "invalid-request")


def test_an_action_takes_no_body() -> None:
    stage = open_stage()
    key = stage.program.get("/keys").json()["data"][0]["id"]
    problem_of(stage.program.post(f"/keys/{key}/revoke", {"really": True}), 400, "invalid-request")
    assert stage.program.post(f"/keys/{key}/revoke", {}).status_code == 200


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("limit=0", "limit", "min_value"),
        ("limit=201", "limit", "max_value"),
        ("limit=", "limit", "invalid"),
        ("limit=+5", "limit", "invalid"),
        ("limit=5.0", "limit", "invalid"),
        ("limit=1&limit=2", "limit", "repeated"),
        ("lmit=5", "lmit", "unknown"),
        ("state=LIVE", "state", "invalid_choice"),
        ("cursor=", "cursor", "blank"),
        ("%00=1", "\x00", "unknown"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(query: str, field: str, code: str) -> None:
    (error,) = problem_of(open_stage().program.get(f"/keys?{query}"), 400, "invalid-request")["errors"]
    assert (error["in"], error["field"], error["code"]) == ("query", field, code)


@pytest.mark.parametrize(
    "path",
    [
        "/usage?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "/usage?bucket=hour&from=2024-01-01T00:00:00Z",
        "/requests?from=2020-01-01T00:00:00Z",
        "/transactions?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    ],
)
def test_a_period_that_cannot_be(path: str) -> None:
    (error,) = problem_of(open_stage().program.get(path), 400, "invalid-request")["errors"]
    assert error["code"] == "period"


def test_what_nobody_foresaw_says_nothing_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = open_stage()

    def fail(**_: object) -> None:
        raise RuntimeError("the password is x")

    monkeypatch.setattr(management_queries, "organization_facts", fail)
    answer = program(stage.key.token, raises=False).get("/organization")
    problem_of(answer, 500, "internal-error")
    assert b"password" not in answer.content
    assert "api.failed" in caplog.text


def test_a_database_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = open_stage()

    def fail(**_: object) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(management_queries, "organization_facts", fail)
    answer = stage.program.get("/organization")
    problem_of(answer, 503, "unavailable")
    assert answer["Retry-After"] == "2"


def test_words_are_english_whatever_the_browser_speaks() -> None:
    body = problem_of(
        open_stage().program.post("/keys", {}, headers={"Accept-Language": "zh-hans"}), 400, "invalid-request"
    )
    assert body["errors"][0]["detail"] == "This field is required."
