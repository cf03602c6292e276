"""Hostile requests: each gets a clear 4xx, costs nothing, holds nothing, and no backend hears of it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devstack.engines.testing import RunningEngine, start_engine
from portal.gateway.tests.hostile_bodies import BODIES, HELLO, UNKNOWN_MODELS
from portal.gateway.tests.stage import Answer, Stage, held_nanos, make_stage, on, requests_of
from portal.kit.ids import PREFIXES, parse_public_id
from portal.kit.secrets import new_api_key
from tests.database import rows_of
from tests.factories import make_tenant
from tests.gateway_process import RunningGateway

MIB = 2**20


@dataclass(slots=True)
class Scene:
    stage: Stage
    engine: RunningEngine


@pytest.fixture(scope="module")
def scene(gateway: RunningGateway) -> Iterator[Scene]:
    """A tenant on an engine of its own, which at the end has seen nothing at all."""
    with start_engine("generic", tokens_per_s=0) as engine:
        scene = Scene(make_stage(gateway, on(engine, "generic")), engine)
        yield scene
        assert engine.requests() == []
    tenant = scene.stage.tenant
    assert requests_of(tenant) == []
    assert held_nanos(tenant) == 0
    assert rows_of("quotas_usagerecord", tenant_id=tenant.id) == []


def check_refusal(answer: Answer, status: int, scene: Scene) -> dict[str, Any]:
    """OpenAI's error shape, the request id in both places, and nothing left behind."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/json"
    error = answer.error
    assert {"message", "type", "param", "code", "request_id"} <= set(error)
    assert error["message"]
    assert len(error["message"]) < 700
    assert error["code"]
    assert error["request_id"] == answer.headers["x-request-id"]
    parse_public_id(PREFIXES["request"], error["request_id"])
    assert "Traceback" not in error["message"]
    assert held_nanos(scene.stage.tenant) == 0
    assert requests_of(scene.stage.tenant) == []
    return error


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body(scene: Scene, name: str) -> None:
    answer = scene.stage.post(BODIES[name](scene.stage.model.slug))
    check_refusal(answer, 400, scene)


@pytest.mark.parametrize("name", UNKNOWN_MODELS)
def test_a_model_that_does_not_exist(scene: Scene, name: str) -> None:
    answer = scene.stage.post({"model": UNKNOWN_MODELS[name], "messages": HELLO})
    error = check_refusal(answer, 404, scene)
    assert error["code"] == "model_not_found"
    assert "x-injected" not in answer.headers


def test_the_field_is_named(scene: Scene) -> None:
    slug = scene.stage.model.slug
    assert scene.stage.post(BODIES["n_predict"](slug)).error["param"] == "n_predict"
    assert scene.stage.post(BODIES["max_tokens string"](slug)).error["param"] == "max_tokens"
    assert "messages[0]" in scene.stage.post(BODIES["unknown role"](slug)).error["message"].replace(
        "[...]", "[0]"
    )


# Sizes, speeds and ends of bodies.


def exchange(
    gateway: RunningGateway, head: str, *, body: bytes = b"", token: str = "", is_cut: bool = False
) -> Answer | None:
    """One raw exchange. `head` begins with the request line; is_cut: leave after sending."""
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    lines = [*head.splitlines(), f"Host: {host}", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        if is_cut:
            return None
        response = http.client.HTTPResponse(connection)
        response.begin()
        content = response.read()
        headers: Any = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, content)


POST = "POST /v1/chat/completions HTTP/1.1\nContent-Type: application/json"


@pytest.mark.parametrize("size_mib", [9, 30])
def test_a_body_that_is_too_large(scene: Scene, size_mib: int) -> None:
    body = scene.stage.body("x" * size_mib * MIB)
    error = check_refusal(scene.stage.post(body), 413, scene)
    assert error["code"] == "request_too_large"


def test_a_chunked_body_that_is_too_large(scene: Scene) -> None:
    """Without Content-Length the size shows only as it comes."""
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = exchange(
        scene.stage.gateway,
        f"{POST}\nTransfer-Encoding: chunked",
        body=piece * 200 + b"0\r\n\r\n",
        token=scene.stage.tenant.key.token,
    )
    assert answer is not None
    check_refusal(answer, 413, scene)


def test_a_terabyte_is_announced(scene: Scene) -> None:
    """A client that waits to be asked for its body is told at once that nobody wants it."""
    head = f"{POST}\nExpect: 100-continue\nContent-Length: {10**12}"
    answer = exchange(scene.stage.gateway, head, token=scene.stage.tenant.key.token)
    assert answer is not None
    check_refusal(answer, 413, scene)


def test_a_slow_body(scene: Scene, impatient_gateway: RunningGateway) -> None:
    """The body is announced, begun, and never finished."""
    head = f"{POST}\nContent-Length: 500"
    answer = exchange(impatient_gateway, head, body=b'{"model":', token=scene.stage.tenant.key.token)
    assert answer is not None
    error = check_refusal(answer, 408, scene)
    assert error["code"] == "request_timeout"


def test_a_large_body_that_never_ends(scene: Scene, impatient_gateway: RunningGateway) -> None:
    head = f"{POST}\nContent-Length: {10**10}"
    answer = exchange(impatient_gateway, head, body=b"x" * MIB, token=scene.stage.tenant.key.token)
    assert answer is not None
    check_refusal(answer, 413, scene)


def test_a_client_that_leaves_in_its_body(scene: Scene) -> None:
    head = f"{POST}\nContent-Length: 500"
    for _ in range(5):
        exchange(
            scene.stage.gateway,
            head,
            body=b'{"model":',
            token=scene.stage.tenant.key.token,
            is_cut=True,
        )
    # The gateway is none the worse for it.
    check_refusal(scene.stage.post(b"{}"), 400, scene)


# Keys, methods and paths.

AUTHORIZATIONS = {
    "missing": None,
    "empty": "",
    "no scheme": "{token}",
    "basic": "Basic dXNlcjpwYXNz",
    "scheme only": "Bearer",
    "no token": "Bearer ",
    "garbled": "Bearer slc_live_garbled",
    "wrong checksum": "Bearer {token}x",
    "cut": "Bearer {short}",
    "two tokens": "Bearer {token} {token}",
    "too long": "Bearer " + "a" * 5000,
    "latin": "Bearer sl\u00e9c",
    "null byte escaped": "Bearer %00",
    "wrong secret": "Bearer {other}",
}


@pytest.mark.parametrize("name", AUTHORIZATIONS)
def test_a_wrong_key(scene: Scene, name: str) -> None:
    token = scene.stage.tenant.key.token
    # Whole and well-formed, with the id of a key that exists, but with another secret.
    other = new_api_key(scene.stage.tenant.key.id).token
    head = POST
    if (given := AUTHORIZATIONS[name]) is not None:
        head += "\nAuthorization: " + given.format(token=token, short=token[:-4], other=other)
    body = json.dumps(scene.stage.body("hello")).encode()
    answer = exchange(scene.stage.gateway, f"{head}\nContent-Length: {len(body)}", body=body)
    assert answer is not None
    error = check_refusal(answer, 401, scene)
    assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
    assert token not in error["message"]


ADDRESSES = {
    ("GET", "/v1/chat/completions"): 405,
    ("DELETE", "/v1/chat/completions"): 405,
    ("PUT", "/v1/models"): 405,
    ("POST", "/v1/models"): 405,
    ("GET", "/v1/embeddings"): 405,
    ("POST", "/v1/audio/speech"): 404,
    ("POST", "/v1/chat/completions/"): 404,
    ("POST", "/v1/chat/completions/../../etc/passwd"): 404,
    ("POST", "/v1/%00"): 404,
    ("GET", "/"): 404,
    ("GET", "/v1/models/nobody/nothing"): 404,
    ("GET", "/v1/models/%0d%0aX-Injected:1"): 404,
    ("POST", "/admin"): 404,
}


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_a_wrong_address(scene: Scene, method: str, path: str) -> None:
    answer = exchange(
        scene.stage.gateway,
        f"{method} {path} HTTP/1.1\nContent-Length: 2",
        body=b"{}",
        token=scene.stage.tenant.key.token,
    )
    assert answer is not None
    check_refusal(answer, ADDRESSES[method, path], scene)


def test_a_stranger_without_the_model(scene: Scene) -> None:
    """A model that exists but was not enabled is a 403, and nothing about the other tenant shows."""
    stranger = make_tenant()
    answer = scene.stage.post(scene.stage.body("hello"), token=stranger.key.token)
    error = check_refusal(answer, 403, scene)
    assert error["code"] == "model_not_enabled"


def test_the_gateway_is_well_after_all_that(scene: Scene) -> None:
    assert "internal_error" not in scene.stage.gateway.log()
    assert "gateway.request.failed" not in scene.stage.gateway.log()
