"""Asking one backend: what comes of it, and that it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction

from models_catalog.fleet.inventory import BackendNotFound
from models_catalog.fleet.probe import MAX_ANSWER_BYTES, InsideTransaction, Probe, probe_backend
from models_catalog.fleet.tests.rows import make_backend, make_pool
from models_catalog.models import Engine
from portal.kit.ids import uuid7
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")

Page = tuple[int, bytes, str]
MODELS = json.dumps({"object": "list", "data": [{"id": "one"}, {"id": "two\x1b[31m"}]}).encode()


@contextmanager
def engine(
    pages: Mapping[str, tuple[int, bytes, str]], hangs: bool = False
) -> Iterator[tuple[str, list[Any]]]:
    """A server with these pages (status, body, location), and what it was asked."""
    asked: list[Any] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            if hangs:
                done.wait(20)
                return
            status, body, location = pages.get(self.path, (404, b"", ""))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """Nothing is written to the test's output."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                """The probe hangs up when it has read enough."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        done.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def probed(url: str, *, timeout_s: float = 5.0, **fields: Any) -> Probe:
    with role_scope("operator"):
        backend = make_backend(make_pool(), base_url=url, **fields)
        return probe_backend(backend_id=backend.id, secrets=settings.SECRET_STORE, timeout_s=timeout_s)


def test_models_and_version_with_the_credential() -> None:
    assert settings.SECRET_STORE is not None
    pages = {"/v1/models": (200, MODELS, ""), "/version": (200, b'{"version": "0.11.0"}', "")}
    with engine(pages) as (url, asked):
        probe = probed(url, credential_encrypted=settings.SECRET_STORE.encrypt("token"))
    assert (probe.is_reachable, probe.error, probe.version) == (True, "", "0.11.0")
    assert probe.models == ("one", "two[31m")
    assert sorted(asked) == [("/v1/models", "Bearer token"), ("/version", "Bearer token")]


@pytest.mark.parametrize(
    ("kind", "path", "body", "version"),
    [
        (Engine.LLAMACPP, "/props", b'{"build_info": "b6000-abc"}', "b6000-abc"),
        (Engine.SGLANG, "/get_server_info", b'{"version": "0.5.4"}', "0.5.4"),
        (Engine.VLLM, "/version", b'{"version": 5}', ""),
        (Engine.VLLM, "/version", b"<html>", ""),
        (Engine.GENERIC, "/version", b'{"version": "1"}', ""),
    ],
)
def test_versions(kind: str, path: str, body: bytes, version: str) -> None:
    with engine({"/v1/models": (200, MODELS, ""), path: (200, body, "")}) as (url, _):
        assert probed(url, engine=kind).version == version


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ((401, b"{}", ""), "answered HTTP 401"),
        ((200, b"<html>", ""), "answered something else than a list of models"),
        ((200, b"[" * 100_000, ""), "answered something else than a list of models"),
        ((200, b" " * (MAX_ANSWER_BYTES + 1), ""), "the answer is too large"),
    ],
)
def test_other_answers(page: Page, error: str) -> None:
    with engine({"/v1/models": page}) as (url, _):
        probe = probed(url)
    assert (probe.is_reachable, probe.error, probe.models) == (True, error, ())


def test_a_redirect_is_not_followed() -> None:
    with engine({"/elsewhere": (200, MODELS, "")}) as (elsewhere, asked):
        pages = {"/v1/models": (302, b"", f"{elsewhere}/elsewhere")}
        with engine(pages) as (url, _):
            probe = probed(url)
    assert (probe.error, asked) == ("answered HTTP 302", [])


def test_nobody_there_and_no_answer() -> None:
    with engine({}) as (url, _):
        pass
    gone = probed(url)
    assert not gone.is_reachable
    assert gone.error.startswith("not reachable (")
    with engine({}, hangs=True) as (url, _):
        assert probed(url, timeout_s=0.2).error == "no answer in time"


def test_a_credential_that_cannot_be_read_is_not_left_out() -> None:
    with engine({"/v1/models": (200, MODELS, "")}) as (url, asked):
        probe = probed(url, credential_encrypted="99:nothing")
    assert (probe.error, asked) == ("its credential cannot be read", [])


def test_never_inside_a_transaction() -> None:
    with role_scope("operator"):
        with pytest.raises(BackendNotFound):
            probe_backend(backend_id=uuid7(), secrets=None)
        with transaction.atomic(using="operator"), pytest.raises(InsideTransaction):
            probe_backend(backend_id=uuid7(), secrets=None)
