"""API keys through the API: what the console does, a program does as well."""

from __future__ import annotations

import pytest

from portal.api.tests.stage import open_stage, problem_of
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.secrets import parse_api_key
from tests.factories import enable, issue_key, make_model

pytestmark = pytest.mark.usefixtures("database")


def test_a_key_lives_its_life() -> None:
    stage = open_stage()
    model = make_model()
    enable(stage.tenant, model)
    made = stage.program.post(
        "/keys", {"name": "nightly", "labels": {"team": "search"}, "models": [model.slug]}
    )
    assert made.status_code == 201, made.content
    key = made.json()["key"]
    assert parse_api_key(made.json()["secret"]).key_id
    assert (key["name"], key["labels"], key["models"], key["state"]) == (
        "nightly",
        {"team": "search"},
        [model.slug],
        "ACTIVE",
    )
    assert key["hint"].endswith(made.json()["secret"][-4:])
    assert key["created_at"].endswith("Z")
    changed = stage.program.call("PATCH", f"/keys/{key['id']}", {"name": "nightly 2"}).json()
    assert changed == {**key, "name": "nightly 2"}
    opened = stage.program.call("PATCH", f"/keys/{key['id']}", {"models": None}).json()
    assert opened == {**changed, "models": None}
    assert stage.program.get(f"/keys/{key['id']}").json() == opened
    rotated = stage.program.post(f"/keys/{key['id']}/rotate")
    assert rotated.status_code == 201
    assert stage.program.get(f"/keys/{key['id']}").json()["state"] == "REPLACED"
    problem_of(stage.program.post(f"/keys/{key['id']}/rotate"), 404, "not-found")
    successor = rotated.json()["key"]["id"]
    revoked = stage.program.post(f"/keys/{successor}/revoke").json()
    assert (revoked["state"], revoked["id"]) == ("REVOKED", successor)
    assert stage.program.post(f"/keys/{successor}/revoke").json() == revoked
    problem_of(stage.program.call("PATCH", f"/keys/{successor}", {"name": "x"}), 404, "not-found")


def test_lists_are_paged_and_filtered() -> None:
    stage = open_stage()
    for _ in range(4):
        issue_key(stage.tenant.id)
    whole = stage.program.get("/keys").json()
    assert (len(whole["data"]), whole["next_cursor"]) == (5, None)
    seen, cursor = [], ""
    for _ in range(3):
        page = stage.program.get(f"/keys?limit=2{cursor}").json()
        seen += page["data"]
        cursor = f"&cursor={page['next_cursor']}"
    assert (seen, page["next_cursor"]) == (whole["data"], None)
    stage.program.post(f"/keys/{seen[0]['id']}/revoke")
    assert [key["id"] for key in stage.program.get("/keys?state=ended").json()["data"]] == [seen[0]["id"]]
    assert len(stage.program.get("/keys?state=live").json()["data"]) == 4


def test_a_cursor_is_of_one_list_one_caller_and_one_filter() -> None:
    stage, other = open_stage(), open_stage()
    for _ in range(2):
        issue_key(stage.tenant.id)
    cursor = stage.program.get("/keys?limit=1&state=live").json()["next_cursor"]
    assert stage.program.get(f"/keys?limit=1&cursor={cursor}").status_code == 200
    assert stage.program.get(f"/keys?limit=1&state=live&cursor={cursor}").status_code == 200
    for wrong in (
        stage.program.get(f"/keys?state=ended&cursor={cursor}"),
        other.program.get(f"/keys?cursor={cursor}"),
        stage.program.get(f"/models?cursor={cursor}"),
        stage.program.get(f"/keys?cursor={cursor[:-2]}"),
        stage.program.get("/keys?cursor=x"),
    ):
        body = problem_of(wrong, 400, "invalid-request")
        assert body["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "name", "required"),
        ({"name": ""}, "name", "blank"),
        ({"name": 5}, "name", "invalid"),
        ({"name": "x" * 101}, "name", "max_length"),
        ({"name": "x", "lables": {}}, "lables", "unknown"),
        ({"name": "x", "labels": {"a": 1}}, "labels.a", "invalid"),
        ({"name": "x", "labels": {"": "1"}}, "labels", "name"),
        ({"name": "x", "models": "all"}, "models", "not_a_list"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at", "invalid"),
        ({"name": "x", "expires_at": "2026-01-01"}, "expires_at", "invalid"),
        ({"name": "x", "expires_at": "2026-01-01T00:00:00"}, "expires_at", "invalid"),
        ({"name": "x\u0000"}, "name", "null_characters_not_allowed"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(body: object, field: str, code: str) -> None:
    errors = problem_of(open_stage().program.post("/keys", body), 400, "invalid-request")["errors"]
    assert [(error["in"], error["field"], error["code"]) for error in errors] == [("body", field, code)]


def test_what_the_domain_refuses_is_a_problem_and_changes_nothing() -> None:
    stage = open_stage()
    before = stage.program.get("/keys").json()
    past = {"name": "late", "expires_at": "2020-01-01T00:00:00Z"}
    problem_of(stage.program.post("/keys", past), 422, "refused")
    unknown = {"name": "x", "models": ["nobody/nothing"]}
    problem_of(stage.program.post("/keys", unknown), 422, "refused")
    assert stage.program.get("/keys").json() == before


def test_what_belongs_to_others_is_not_there() -> None:
    stage, other = open_stage(), open_stage()
    for key in (public_id(PREFIXES["api_key"], other.tenant.key.id), public_id("key", uuid7()), "nothing"):
        for method, path in (
            ("GET", f"/keys/{key}"),
            ("PATCH", f"/keys/{key}"),
            ("POST", f"/keys/{key}/rotate"),
            ("POST", f"/keys/{key}/revoke"),
        ):
            body = {"name": "mine"} if method == "PATCH" else None
            problem_of(stage.program.call(method, path, body), 404, "not-found")
