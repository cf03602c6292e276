"""The door: who proves to be the feed is heard, whoever else learns nothing, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from models_catalog.engines.feeds import FeedFormat
from portal.ingest import failures
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.reconciliation.ingest.credentials import signature_of
from quotas.reconciliation.ingest.operations import issue_feed_credential, set_feed_enabled
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    entry_dict,
    make_feed,
    ndjson_line,
    quarantine_of,
    records_of,
    state_of,
)
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import rows_of

NDJSON = "application/x-ndjson"
REFUSED = b'{"wire_id": "a secret", "prompt_tokens": -1, "completion_tokens": 1, "unit": "tokens"}\n'
BATCH = "application/cloudevents-batch+json"
GZIP = {"Content-Encoding": "gzip"}
OTLP = "/ingest/otlp/v1/traces"


@pytest.fixture(autouse=True)
def _counted_anew(database: None) -> None:
    cache.delete("ingest:failures:127.0.0.1")


def issue(feed: FeedSource) -> str:
    with role_scope("operator"):
        return issue_feed_credential(
            feed_id=feed.id,
            actor=audit.SYSTEM,
            reason="for the test",
            now=utc_now(),
            secrets=settings.SECRET_STORE,  # type: ignore[arg-type]
        )


def push(
    feed: FeedSource | str,
    body: bytes,
    token: str,
    *,
    way: str = "ndjson",
    content_type: str = NDJSON,
    at_s: float | None = None,
    signature: str | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    timestamp = str(int(time.time() if at_s is None else at_s))
    if signature is None:
        complete_to = headers.get("Sluice-Complete-To", "")
        signed = signature_of(token=token, timestamp=timestamp, complete_to=complete_to, body=body)
        signature = f"v1={signed}"
    named = feed if isinstance(feed, str) else feed.code
    return Client(enforce_csrf_checks=True).post(
        f"/ingest/v1/{named}/{way}",
        data=body,
        content_type=content_type,
        headers={"Sluice-Timestamp": timestamp, "Sluice-Signature": signature, **headers},
    )


def event(wire_id: str | None = None, **values: Any) -> dict[str, Any]:
    data = entry_dict(wire_id, **values)
    return {
        "specversion": "1.0",
        "type": "sluice.usage.v1",
        "source": "/centre/node-1",
        "id": uuid7().hex,
        "time": data.pop("finished_at"),
        "data": data,
    }


def span(request_id: str, *, prompt: object = "18", completion: object = "16") -> dict[str, Any]:
    attributes = {
        "gen_ai.request.id": {"stringValue": request_id},
        "gen_ai.usage.prompt_tokens": {"intValue": prompt},
        "gen_ai.usage.completion_tokens": {"intValue": completion},
    }
    return {
        "traceId": uuid7().hex,
        "spanId": uuid7().hex[:16],
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": [{"key": key, "value": value} for key, value in attributes.items()],
    }


def export(*spans: dict[str, Any]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def test_signed_lines_are_taken_once() -> None:
    feed = make_feed()
    token = issue(feed)
    body = ndjson_line() + ndjson_line("somebody-elses") + REFUSED
    answer = push(feed, body, token)
    assert answer.status_code == 200
    told = answer.json()
    assert told == {
        "taken": 2,
        "new": 2,
        "known": 0,
        "quarantined": 1,
        "problems": [{"index": 2, "reason": "negative", "detail": "prompt_tokens"}],
    }
    again = push(feed, body, token).json()
    assert (again["new"], again["known"], again["quarantined"]) == (0, 2, 1)
    (kept,) = quarantine_of(feed)
    assert json.loads(kept["body"]) == {"prompt_tokens": -1, "completion_tokens": 1}
    assert kept["file_id"] is None
    assert len(records_of(feed)) == 2


def test_events_single_in_batches_and_packed() -> None:
    feed = make_feed(FeedFormat.CLOUDEVENTS)
    token = issue(feed)
    one = push(
        feed,
        json.dumps(event()).encode(),
        token,
        way="cloudevents",
        content_type="application/cloudevents+json",
    )
    assert one.json()["new"] == 1
    batch = gzip.compress(json.dumps([event(), event(unit="characters"), event()]).encode())
    many = push(feed, batch, token, way="cloudevents", content_type=BATCH, headers=GZIP)
    assert (many.json()["new"], many.json()["problems"][0]["reason"]) == (2, "wrong_unit")
    (kept,) = quarantine_of(feed)
    assert json.loads(kept["body"])["data"]["prompt_tokens"] == 18
    assert "characters" not in kept["body"]


def test_a_feed_goes_by_its_backends_code_too() -> None:
    feed = make_feed()
    token = issue(feed)
    (backend,) = rows_of("models_catalog_servingbackend", id=feed.backend_id)
    assert push(backend["code"], ndjson_line(), token).json()["new"] == 1


def test_spans_with_a_bearer_token() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    feed = make_feed(FeedFormat.VLLM_OTLP)
    bearer = {"Authorization": f"Bearer {issue(feed)}"}
    body = export(span("chatcmpl-other-1"), span("chatcmpl-other-2", prompt="-3"))
    answer = Client().post(OTLP, data=body, content_type="application/json", headers=bearer)
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "negative"}}
    (kept,) = quarantine_of(feed)
    assert "other" not in kept["body"]
    assert "-3" in kept["body"]

    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans.add()
    made.trace_id, made.span_id, made.end_time_unix_nano = b"t" * 16, b"s" * 8, time.time_ns()
    for key, value in (("prompt_tokens", 1), ("completion_tokens", 2)):
        made.attributes.add(key=f"gen_ai.usage.{key}").value.int_value = value
    made.attributes.add(key="gen_ai.request.id").value.string_value = "chatcmpl-third"
    packed = gzip.compress(request.SerializeToString())
    answer = Client().post(
        OTLP,
        data=packed,
        content_type="application/x-protobuf",
        headers={**bearer, "Content-Encoding": "gzip"},
    )
    assert answer.status_code == 200
    assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")
    assert len(records_of(feed)) == 2


def test_spans_come_in_smaller_bodies() -> None:
    bearer = {"Authorization": f"Bearer {issue(make_feed(FeedFormat.VLLM_OTLP))}"}
    body = b'{"resourceSpans": []' + b" " * 2 * 2**20 + b"}"
    for sent, more in ((body, {}), (gzip.compress(body), GZIP)):
        answer = Client().post(OTLP, data=sent, content_type="application/json", headers={**bearer, **more})
        assert answer.status_code == 413


def test_whoever_proves_nothing_learns_nothing() -> None:
    feed, other = make_feed(), make_feed()
    token, others = issue(feed), issue(other)
    body = ndjson_line()
    rotated = issue(feed)
    answers = [
        push(feed, body, token),
        push(feed, body, others),
        push("no-such-feed", body, rotated),
        push("nul\0", body, rotated),
        push("x" * 300, body, rotated),
        push(make_feed(), body, rotated),
        push(feed, body, rotated, way="csv"),
        push(feed, body, rotated, signature=""),
        push(feed, body, rotated, signature="v1=" + "0" * 64),
        push(feed, body, rotated, signature="v2=" + "0" * 64),
        push(feed, body, rotated, at_s=time.time() - 301),
        push(feed, body, rotated, at_s=time.time() + 301),
        push(feed, body, rotated, at_s=10**15),
        push(feed, body + b" ", rotated, signature=sign_other(rotated, body)),
        Client().post(f"/ingest/v1/{feed.code}/ndjson", data=body, content_type=NDJSON),
        Client().post(OTLP, data=export(), content_type="application/json"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers[:-1]}) == 1
    assert not records_of(feed)
    assert push(feed, body, rotated).status_code == 200


def sign_other(token: str, body: bytes) -> str:
    timestamp = str(int(time.time()))
    return f"v1={signature_of(token=token, timestamp=timestamp, complete_to='', body=body)}"


def test_tokens_of_others_open_no_door_for_spans() -> None:
    feed, lines = make_feed(FeedFormat.VLLM_OTLP), make_feed()
    token = issue(feed)
    known, secret = token.rsplit("_", 1)[0], issue(lines)
    for wrong in ("", "Basic abc", f"Bearer {known}_{'a' * 43}", "Bearer slf_x", f"Bearer {token}x"):
        answer = Client().post(
            OTLP, data=export(), content_type="application/json", headers={"Authorization": wrong}
        )
        assert answer.status_code == 401, wrong
    answer = Client().post(
        OTLP, data=export(), content_type="application/json", headers={"Authorization": f"Bearer {secret}"}
    )
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "status", "error"),
    [
        (b"[{", BATCH, {}, 400, "not_json"),
        (b"{}", BATCH, {}, 400, "wrong_shape"),
        (b"[]", "application/json", {}, 415, "unknown_content_type"),
        (b"[]", BATCH, {"Content-Encoding": "br"}, 415, "unknown_content_encoding"),
        (b"[]", BATCH, GZIP, 400, "broken_gzip"),
        (gzip.compress(b"[]") + b"more", BATCH, GZIP, 400, "broken_gzip"),
        (
            gzip.compress(b"[" + b" " * 9 * 2**20 + b"]"),
            BATCH,
            {"Content-Encoding": "gzip"},
            413,
            "body_too_large",
        ),
        (b"[" + b" " * 9 * 2**20 + b"]", BATCH, {}, 413, "body_too_large"),
        (b"[" + b",".join([b"7"] * 1002) + b"]", BATCH, {}, 400, "too_many_unreadable"),
        (b"[]", BATCH, {"Sluice-Complete-To": "yesterday"}, 400, "bad_complete_to"),
        (b"[]", BATCH, {"Sluice-Complete-To": "2026-11-24T00:05:00"}, 400, "bad_complete_to"),
        (b"[]", BATCH, {"Sluice-Complete-To": "1999-12-31T23:59:59Z"}, 400, "bad_complete_to"),
        (b"[]", BATCH, {"Sluice-Complete-To": "0001-01-01T00:00:00+14:00"}, 400, "bad_complete_to"),
        (b"[]", BATCH, {"Sluice-Complete-To": "9999-12-31T23:59:59-12:00"}, 400, "bad_complete_to"),
    ],
)
def test_what_is_wrong_is_named(
    body: bytes, content_type: str, headers: dict[str, str], status: int, error: str
) -> None:
    feed = make_feed(FeedFormat.CLOUDEVENTS)
    answer = push(feed, body, issue(feed), way="cloudevents", content_type=content_type, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert not records_of(feed)
    assert not quarantine_of(feed)


def test_a_feed_that_is_switched_off_takes_nothing() -> None:
    feed = make_feed()
    token = issue(feed)
    with role_scope("operator"):
        set_feed_enabled(
            feed_id=feed.id, is_enabled=False, actor=audit.SYSTEM, reason="for the test", now=utc_now()
        )
    answer = push(feed, ndjson_line(), token)
    assert (answer.status_code, answer.json()["error"]) == (409, "feed_not_ready")


def test_until_when_all_was_sent() -> None:
    feed = make_feed()
    token = issue(feed)
    said = utc_now() - timedelta(minutes=3)
    assert push(feed, b"\n", token, headers={"Sluice-Complete-To": said.isoformat()}).json()["taken"] == 0
    assert state_of(feed)["complete_to"] == said
    assert state_of(feed)["heard_at"] is None
    at_s = int(time.time()) - 60
    assert push(feed, ndjson_line(), token, at_s=at_s).json()["new"] == 1
    # What was sent a while ago says nothing of what has been since.
    assert state_of(feed)["complete_to"].timestamp() == at_s
    ahead = utc_now() + timedelta(minutes=2)
    assert push(feed, b"\n", token, headers={"Sluice-Complete-To": ahead.isoformat()}).status_code == 200
    assert said < state_of(feed)["complete_to"] < ahead


def test_until_when_is_signed_too() -> None:
    feed = make_feed()
    token = issue(feed)
    said = {"Sluice-Complete-To": utc_now().isoformat()}
    forged = push(feed, b"\n", token, signature=sign_other(token, b"\n"), headers=said)
    assert forged.status_code == 401
    assert not rows_of("quotas_feedstate", feed_id=feed.id)


def test_failures_are_counted_and_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_FAILURES", 3)
    feed = make_feed()
    token = issue(feed)
    statuses = [push(feed, b"", token, signature="").status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert push(feed, ndjson_line(), token).status_code == 200


def test_only_posts() -> None:
    feed = make_feed()
    for method in ("get", "put", "delete", "patch", "head"):
        assert getattr(Client(), method)(f"/ingest/v1/{feed.code}/ndjson").status_code == 405
        assert getattr(Client(), method)(OTLP).status_code == 405


def target_of(feed: FeedSource) -> str:
    return public_id(PREFIXES["feed"], feed.id)


def test_a_credential_is_stored_encrypted_and_written_down() -> None:
    feed = make_feed()
    token = issue(feed)
    (row,) = rows_of("models_catalog_usagefeed", id=feed.id)
    assert token not in row["credential_encrypted"]
    (written,) = rows_of("tenants_auditevent", action="feed.credential", target=target_of(feed))
    assert token not in str(written)
    assert (written["before"], written["after"]) == ({"credential": False}, {"credential": True})
    assert token not in repr(feed)
