"""The OpenAPI description, and the page that is made of it."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

from portal.api import problems
from portal.api.documentation import JSON_TYPE, YAML_TYPE, plain_document
from portal.api.endpoints import Endpoint
from portal.api.reference import sections_of
from portal.api.schema import TAGS, document
from tests.routes import every_route

pytestmark = pytest.mark.usefixtures("database")


def test_it_is_valid_and_made_without_a_warning(tmp_path) -> None:
    errors = io.StringIO()
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "api.yaml"), stderr=errors
    )
    assert errors.getvalue() == ""


def test_both_files_say_the_same_and_serve_everybody() -> None:
    as_json, as_yaml = Client().get("/api/v1/openapi.json"), Client().get("/api/v1/openapi.yaml")
    assert (as_json["Content-Type"], as_yaml["Content-Type"]) == (JSON_TYPE, YAML_TYPE)
    assert json.loads(as_json.content) == yaml.safe_load(as_yaml.content)
    assert (
        as_json.json()["openapi"].startswith("3.1") if as_json["Content-Type"] == "application/json" else True
    )
    assert Client().post("/api/v1/openapi.json").status_code == 405


def test_every_operation_says_all_that_programs_need() -> None:
    ids = []
    for path, methods in document()["paths"].items():
        for method, found in methods.items():
            ids.append(found["operationId"])
            assert found["security"] == [{"managementKey": []}], path
            assert found["description"], path
            assert found["tags"][0] in TAGS, path
            statuses = set(found["responses"])
            assert {"400", "401", "403", "406", "429", "500", "503"} <= statuses, path
            assert ("404" in statuses) >= ("{" in path), path
            names = {parameter["name"] for parameter in found.get("parameters", ())}
            assert ("Idempotency-Key" in names) == (method != "get"), path
            for status, answer in found["responses"].items():
                kinds = set(answer["content"])
                wanted = "application/json" if status[0] == "2" else problems.MEDIA_TYPE
                assert kinds == {wanted}, (path, status)
    assert len(ids) == len(set(ids)) >= 19


def test_every_endpoint_serves_only_what_it_describes() -> None:
    """No page that shows the API as forms, no endpoint without a description or without a need."""
    for route in every_route():
        view = getattr(route.view, "cls", None)
        if view is None:
            continue
        assert issubclass(view, Endpoint), route.name
        assert view.operations(), route.name
        assert [renderer.media_type for renderer in view.renderer_classes] == ["application/json"]
        for operation in view.operations().values():
            assert operation.permission is not None or view.for_operators, operation.id
            assert operation.scope is not None or operation.id == "getOrganization", operation.id


def test_nothing_is_shown_as_a_page() -> None:
    answer = Client().get("/api/v1/keys", headers={"Accept": "text/html"})
    assert answer["Content-Type"] == problems.MEDIA_TYPE
    assert b"<html" not in answer.content


class _Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        href = found.get("href") or ""
        if href.startswith("#"):
            self.anchors.add(href[1:])


def test_the_pages_show_every_operation_and_every_problem() -> None:
    first = _page("/docs/api")
    sections = "".join(_page(f"/docs/api/{one.anchor}") for one in sections_of(plain_document()))
    for path, methods in document()["paths"].items():
        assert path in first
        for found in methods.values():
            assert f'#{found["operationId"]}"' in first
            assert sections.count(f' id="{found["operationId"]}"') == 1
    for kind in problems.KINDS:
        assert f' id="problem-{kind.code}"' in first
        assert kind.uri.endswith(f"/docs/api#problem-{kind.code}")
    assert Client().get("/docs/api/nothing").status_code == 404


def _page(address: str) -> str:
    """A page whose links within lead somewhere, and that loads nothing from elsewhere."""
    page = Client().get(address)
    assert page.status_code == 200
    text = page.content.decode()
    parser = _Ids()
    parser.feed(text)
    assert len(parser.ids) == len(set(parser.ids)), address
    assert parser.anchors <= set(parser.ids), address
    assert "cdn" not in text.lower()
    assert " style=" not in text
    return text
