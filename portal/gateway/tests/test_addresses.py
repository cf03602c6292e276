"""Names of models, what /v1/models tells of them, and how a model's end is announced and comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2 as httpx
import pytest

from models_catalog.models import CatalogModel, ModelAlias
from portal.gateway.tests.endpoints import call, recorded
from portal.gateway.tests.stage import Stage, make_stage, stored
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import make_model, unique_name
from tests.gateway_process import RunningGateway, client
from tests.waiting import wait_for


def get(stage: Stage, path: str, **headers: str) -> httpx.Response:
    with client(stage.gateway, stage.tenant.key.token) as http:
        return http.get(path, headers=headers)


def model_of(stage: Stage, name: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = get(stage, f"/models/{name or stage.model.slug}").json()
    return found


def change(stage: Stage, **fields: Any) -> None:
    with role_scope("operator"):
        CatalogModel.objects.filter(id=stage.model.id).update(**fields)


def alias(stage: Stage, name: str) -> None:
    with role_scope("operator"):
        ModelAlias.objects.create(name=name, model_id=stage.model.id)


@pytest.mark.parametrize("stem", ["GPT-4o", "latest/model"])
def test_an_alias_leads_to_the_model(gateway: RunningGateway, stem: str) -> None:
    """Answers, records and lists show the model's own name."""
    with recorded(gateway, "messages", "vllm", "messages_plain") as stage:
        name = unique_name(stem)
        assert call(stage, "messages", model=name).status == 404
        alias(stage, name)
        # A name that nobody knows yet is asked for at once.
        answer = call(stage, "messages", model=name)
        assert (answer.status, answer.json["model"]) == (200, stage.model.slug)
        assert stored(answer.request_id).usage is not None
        (request,) = rows_of("quotas_inferencerequest", id=answer.request_id)
        assert request["model_id"] == stage.model.id
        shown = model_of(stage, name)
        assert (shown["id"], shown["aliases"]) == (stage.model.slug, [name])


def test_what_is_told_of_a_model(gateway: RunningGateway) -> None:
    stage = make_stage(
        gateway,
        ("llamacpp", "http://127.0.0.1:9"),
        context_tokens=4096,
        max_output_tokens=512,
        default_output_cap_tokens=128,
        capabilities=["tools", "chat"],
    )
    expected = {
        "id": stage.model.slug,
        "object": "model",
        "owned_by": "test",
        "context_length": 4096,
        "max_output_tokens": 512,
        "capabilities": ["chat", "tools"],
        "endpoints": ["chat.completions", "completions", "responses", "messages"],
        "aliases": [],
        "deprecation": None,
    }
    shown = model_of(stage)
    assert isinstance(shown.pop("created"), int)
    assert shown == expected
    listed = get(stage, "/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [stage.model.slug]
    assert {name: value for name, value in listed["data"][0].items() if name != "created"} == expected


def test_keys_in_anthropics_header_see_their_models(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("generic", "http://127.0.0.1:9"))
    with client(gateway, "slc_none") as http:
        http.headers.pop("authorization")
        answer = http.get("/models", headers={"x-api-key": stage.tenant.key.token})
    assert [model["id"] for model in answer.json()["data"]] == [stage.model.slug]


def test_an_end_is_announced_on_every_answer(gateway: RunningGateway) -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    successor = make_model()
    fields: dict[str, Any] = {"deprecated_at": since, "sunset_at": until, "successor_id": successor.id}
    with recorded(gateway, "messages", "vllm", "messages_plain", **fields) as stage:
        answers = [call(stage, "messages"), call(stage, "messages", max_tokens=0)]
        assert [answer.status for answer in answers] == [200, 400]
        shown = model_of(stage)["deprecation"]
    for answer in answers:
        assert answer.headers["deprecation"] == f"@{int(since.timestamp())}"
        assert answer.headers["sunset"] == format_datetime(until, usegmt=True)
        assert answer.headers["link"] == f'</v1/models/{successor.slug}>; rel="successor-version"'
    assert shown == {
        "deprecated_at": "2026-01-02T03:04:05Z",
        "sunset_at": until.isoformat().replace("+00:00", "Z"),
        "successor": successor.slug,
    }


def test_an_end_is_announced_on_streams(gateway: RunningGateway) -> None:
    with recorded(
        gateway, "responses", "vllm", "responses_stream", deprecated_at=datetime(2026, 1, 1, tzinfo=UTC)
    ) as stage:
        answer = call(stage, "responses", stream=True)
    assert answer.headers["deprecation"] == "@1767225600"
    assert "sunset" not in answer.headers


def test_a_deprecation_that_lies_ahead_is_not_announced_yet(gateway: RunningGateway) -> None:
    ahead = datetime.now(UTC) + timedelta(days=1)
    with recorded(gateway, "messages", "vllm", "messages_plain", deprecated_at=ahead) as stage:
        answer = call(stage, "messages")
        assert answer.status == 200
        assert "deprecation" not in answer.headers
        assert model_of(stage)["deprecation"]["sunset_at"] is None


def test_a_model_ends(gateway: RunningGateway) -> None:
    successor = make_model()
    stage = make_stage(gateway, ("vllm", "http://127.0.0.1:9"))
    alias_name = unique_name("old")
    alias(stage, alias_name)
    passed = datetime.now(UTC) - timedelta(seconds=1)
    change(stage, deprecated_at=passed, sunset_at=passed, successor_id=successor.id)
    wait_for(lambda: call(stage, "chat.completions").status == 410, 5.0, "the end")
    for name in (stage.model.slug, alias_name):
        answer = call(stage, "chat.completions", model=name)
        assert (answer.status, answer.error["code"]) == (410, "model_retired")
        assert answer.error["successor"] == successor.slug
        assert successor.slug in answer.error["message"]
        assert "sunset" in answer.headers
    assert call(stage, "messages").json["error"]["type"] == "not_found_error"
    assert get(stage, "/models").json()["data"] == []
    assert get(stage, f"/models/{stage.model.slug}").status_code == 410


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/messages", "POST"),
        ("OPTIONS", "/chat/completions", "POST"),
        ("DELETE", "/models", "GET"),
        ("POST", "/models/some/model", "GET"),
        ("POST", "/requests/req_x", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    gateway: RunningGateway, method: str, path: str, allowed: str
) -> None:
    with client(gateway, "slc_none") as http:
        answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_what_lies_below_messages_fails_in_anthropics_form(gateway: RunningGateway) -> None:
    """Its clients ask for counts of tokens and for batches there, and read the error."""
    with client(gateway, "slc_none") as http:
        answers = [http.post(f"/messages{rest}", json={}) for rest in ("/count_tokens", "/batches?beta=true")]
    for answer in answers:
        told = answer.json()
        assert (answer.status_code, told["type"], told["error"]["type"]) == (404, "error", "not_found_error")
        assert answer.headers["request-id"] == answer.headers["x-request-id"] == told["request_id"]


def test_a_name_in_an_address_may_be_encoded(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("generic", "http://127.0.0.1:9"))
    encoded = stage.model.slug.replace("/", "%2F")
    assert model_of(stage, encoded)["id"] == stage.model.slug
    assert get(stage, f"/models/{stage.model.slug}?x=1").status_code == 200
    assert get(stage, f"/models/{stage.model.slug}/").status_code == 404
