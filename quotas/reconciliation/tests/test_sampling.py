"""Samples of the backends' counters: taken from running engines, numbered by the lives of their processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx2 as httpx
import psycopg
import pytest
from django.conf import settings
from django.db import transaction

from devstack.engines.options import Flavour
from devstack.engines.testing import RunningEngine, sim, start_engine
from models_catalog.models import FleetState, ServingBackend
from quotas.models import CounterSample
from quotas.reconciliation import operations, scrape
from quotas.reconciliation.operations import InsideTransaction, sample_counters
from tenants.scope import role_scope
from tests.celery_process import running_celery
from tests.database import connected, rows_of
from tests.factories import make_backend
from tests.faults.test_celery_tasks import run_task

pytestmark = pytest.mark.usefixtures("database")
FLAVOURS: tuple[Flavour, ...] = ("llamacpp", "vllm", "sglang")


def take_sample() -> None:
    sample_counters(secrets=settings.SECRET_STORE)


def samples_of(backend_id: UUID) -> list[CounterSample]:
    with role_scope("operator"):
        return list(CounterSample.objects.filter(backend_id=backend_id).order_by("sampled_at"))


def generate(engine: RunningEngine, tokens: int) -> None:
    body = {
        "model": "sim-model",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": sim(tokens=tokens, prompt=10, rate=0)}],
    }
    headers = {"Authorization": f"Bearer {engine.api_key}"} if engine.api_key else {}
    answer = httpx.post(f"{engine.url}/v1/chat/completions", json=body, headers=headers, timeout=10)
    assert answer.status_code == 200


@contextmanager
def backend_of(base_url: str, engine: str, **fields: object) -> Iterator[UUID]:
    """A backend that is sampled while the test runs, and not by the tests after it."""
    backend_id = make_backend(engine=engine, base_url=base_url)
    try:
        with role_scope("operator"):
            ServingBackend.objects.filter(id=backend_id).update(**fields)
        yield backend_id
    finally:
        with role_scope("operator"):
            ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_counters_are_kept_and_a_restart_begins_another_incarnation(flavour: Flavour) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(start_engine(flavour))
        port = int(engine.url.rpartition(":")[2])
        backend_id = stack.enter_context(backend_of(engine.url, flavour))
        take_sample()
        generate(engine, 7)
        take_sample()
        engine.kill()
        take_sample()
        restarted = stack.enter_context(start_engine(flavour, port=port))
        # It serves again before anybody has looked, though less than before.
        generate(restarted, 3)
        take_sample()
        take_sample()
    found = samples_of(backend_id)
    assert [
        (one.incarnation, one.prompt_tokens, one.completion_tokens, bool(one.error)) for one in found
    ] == [
        (1, 0, 0, False),
        (1, 10, 7, False),
        (1, None, None, True),
        (2, 10, 3, False),
        (2, 10, 3, False),
    ]
    assert found[2].error == "not reachable (ClientConnectorError)"
    assert all(one.asked_at <= one.sampled_at for one in found)


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm"])
def test_a_restart_is_seen_though_no_counter_fell(flavour: Flavour) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(start_engine(flavour))
        backend_id = stack.enter_context(backend_of(engine.url, flavour))
        take_sample()
        engine.kill()
        restarted = stack.enter_context(start_engine(flavour, port=int(engine.url.rpartition(":")[2])))
        generate(restarted, 50)
        take_sample()
    assert [(one.incarnation, one.completion_tokens) for one in samples_of(backend_id)] == [(1, 0), (2, 50)]


def test_the_backends_credential_opens_its_counters() -> None:
    assert settings.SECRET_STORE is not None
    with ExitStack() as stack:
        engine = stack.enter_context(start_engine("llamacpp", api_key="a-key"))
        right = stack.enter_context(
            backend_of(engine.url, "llamacpp", credential_encrypted=settings.SECRET_STORE.encrypt("a-key"))
        )
        wrong = stack.enter_context(
            backend_of(engine.url, "llamacpp", credential_encrypted=settings.SECRET_STORE.encrypt("other"))
        )
        unreadable = stack.enter_context(backend_of(engine.url, "llamacpp", credential_encrypted="9999:x"))
        take_sample()
        (sample,) = samples_of(right)
        assert (sample.error, sample.completion_tokens) == ("", 0)
        assert [one.error for one in samples_of(wrong)] == ["answered HTTP 401"]
        assert [one.error for one in samples_of(unreadable)] == ["its credential cannot be read"]


class _Misbehaving(BaseHTTPRequestHandler):
    """Fails in the way that the path names; the base URL of each backend ends in one."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
        elif kind == "hang":
            self.server.released.wait(10)  # type: ignore[attr-defined]
        else:
            self.send_response(200)
            self.end_headers()
            body = {
                "lies": b"vllm:prompt_tokens_total NaN\nvllm:generation_tokens_total 1\n",
                "html": b"<html>",
            }
            if kind == "endless":
                try:
                    while not self.server.released.is_set():  # type: ignore[attr-defined]
                        self.wfile.write(b"#" * 65536)
                except OSError:
                    return
            else:
                self.wfile.write(body[kind])

    def log_message(self, *_: object) -> None:
        return


def test_one_that_fails_stops_nobody_else() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Misbehaving)
    server.daemon_threads = True
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    expected = {
        "redirect": "answered HTTP 302",
        "hang": "no answer in time",
        "endless": "the page is too large",
        "lies": "vllm:prompt_tokens_total is no number",
        "html": "the page has no counters of this engine",
    }
    try:
        with ExitStack() as stack:
            url = f"http://127.0.0.1:{server.server_port}"
            failing = {kind: stack.enter_context(backend_of(f"{url}/{kind}", "vllm")) for kind in expected}
            nonsense = stack.enter_context(backend_of("http://127.0.0.1:70000", "vllm"))
            engine = stack.enter_context(start_engine("vllm"))
            healthy = stack.enter_context(backend_of(engine.url, "vllm"))
            report = sample_counters(secrets=settings.SECRET_STORE, timeout_s=2)
        assert {kind: [one.error for one in samples_of(id_)] for kind, id_ in failing.items()} == {
            kind: [error] for kind, error in expected.items()
        }
        assert samples_of(nonsense)[0].error.startswith("not reachable")
        assert [one.error for one in samples_of(healthy)] == [""]
        assert report.failed >= len(expected) + 1
        assert report.read >= 1
    finally:
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_disabled_backend_is_left_alone_and_a_draining_one_is_not() -> None:
    with (
        start_engine("vllm") as engine,
        backend_of(engine.url, "vllm", state=FleetState.DRAINING) as draining,
    ):
        disabled = make_backend(engine="vllm", base_url=engine.url)
        with role_scope("operator"):
            ServingBackend.objects.filter(id=disabled).update(state=FleetState.DISABLED)
        take_sample()
    assert len(samples_of(draining)) == 1
    assert not samples_of(disabled)


def test_no_backend_is_asked_inside_a_transaction() -> None:
    with transaction.atomic(using="dataplane"), pytest.raises(InsideTransaction):
        take_sample()


def test_a_reading_that_comes_late_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samplers at once: the older, lower reading must not look like a restart."""
    with start_engine("sglang") as engine, backend_of(engine.url, "sglang") as backend_id:
        generate(engine, 5)
        scrape_all = scrape.scrape_all

        def slow(targets: list[scrape.Target], *, timeout_s: float) -> list[scrape.Scrape]:
            answers = scrape_all(targets, timeout_s=timeout_s)
            generate(engine, 5)
            monkeypatch.setattr(operations, "scrape_all", scrape_all)
            take_sample()
            return answers

        monkeypatch.setattr(operations, "scrape_all", slow)
        report = sample_counters(secrets=settings.SECRET_STORE)
    assert report.out_of_turn >= 1
    assert [(one.incarnation, one.completion_tokens) for one in samples_of(backend_id)] == [(1, 10)]


def test_samples_are_witnesses(subtests: pytest.Subtests) -> None:
    """The database refuses what would make them false."""
    with start_engine("vllm") as engine, backend_of(engine.url, "vllm") as backend_id:
        generate(engine, 5)
        take_sample()
    (sample,) = samples_of(backend_id)
    columns = "backend_id, incarnation, asked_at, sampled_at, prompt_tokens, completion_tokens, cached_tokens"
    insert = (
        f"INSERT INTO quotas_countersample (id, {columns}, prompt_excludes_cached, start_mark, error) "
        "SELECT gen_random_uuid(), {}, false, '', '' FROM quotas_countersample WHERE id = %s"
    )
    refused = {
        "falls": insert.format("backend_id, 1, sampled_at, sampled_at, 10, 4, 0"),
        "skips a life": insert.format("backend_id, 3, sampled_at, sampled_at, 10, 5, 0"),
        "goes back a life": insert.format("backend_id, 0, sampled_at, sampled_at, 10, 5, 0"),
        "comes before": insert.format("backend_id, 1, asked_at, sampled_at, 10, 5, 0"),
        "is negative": insert.format("backend_id, 2, sampled_at, sampled_at, -1, 5, 0"),
        "has no counts": insert.format("backend_id, 2, sampled_at, sampled_at, NULL, NULL, NULL"),
        "changes": "UPDATE quotas_countersample SET completion_tokens = 6 WHERE id = %s",
        "goes": "DELETE FROM quotas_countersample WHERE id = %s",
    }
    with connected("owner") as connection:
        for name, statement in refused.items():
            with subtests.test(name), pytest.raises(psycopg.errors.IntegrityError):
                connection.execute(statement, (sample.id,))
    with connected("dataplane") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE quotas_countersample SET error = 'x'")
    for role in ("tenant", "auth"):
        with connected(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT 1 FROM quotas_countersample")


def test_old_samples_are_thinned_out() -> None:
    """Three days ago: one an hour stays, and the first and last of a life; failures go."""
    backend_id = make_backend()
    with role_scope("operator"):
        ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)
    with connected("owner") as connection:
        for minute in range(0, 180, 10):
            for error, count in (("", minute), ("it failed", None)):
                connection.execute(
                    "INSERT INTO quotas_countersample (id, backend_id, incarnation, asked_at, sampled_at, "
                    "prompt_tokens, completion_tokens, prompt_excludes_cached, start_mark, error) "
                    "SELECT gen_random_uuid(), %s, 1, t, t, %s, %s, false, '', %s "
                    "FROM (SELECT date_trunc('hour', now()) - interval '3 days' "
                    "+ make_interval(mins => %s, secs => %s) AS t) x",
                    (backend_id, count, count, error, minute, 1 if error else 0),
                )
    assert operations.thin_counter_samples() >= 18 + 14
    assert operations.thin_counter_samples() == 0
    assert [one.completion_tokens for one in samples_of(backend_id)] == [0, 50, 110, 170]
    assert not any(one.error for one in samples_of(backend_id))


def test_a_worker_takes_samples(tmp_path: Path) -> None:
    with (
        start_engine("vllm") as engine,
        backend_of(engine.url, "vllm") as backend_id,
        running_celery(tmp_path) as celery,
    ):
        for name in ("sample_counters", "thin_counter_samples"):
            run_task(celery, name, "default")
        assert len(rows_of("quotas_countersample", backend_id=backend_id)) == 1
