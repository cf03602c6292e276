"""Feeds that are pushed: bodies, headers, signatures, and a receiver that is not always there."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from devstack.engines.feeds.faults import FeedFaults
from devstack.engines.feeds.options import FeedOptions
from devstack.engines.testing import sim, start_engine
from devstack.engines.tests.raw import ask, chat


class Receiver:
    """Takes bodies, and answers with the statuses that are wanted, then with 200."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append((self.path, headers, body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def spans_in(body: bytes) -> list[tuple[str, int, int]]:
    """Id, prompt and completion tokens of each span of a body in protobuf."""
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for span in resource.scope_spans[0].spans:
            told = {attribute.key: attribute.value for attribute in span.attributes}
            found.append(
                (
                    told["gen_ai.request.id"].string_value,
                    told["gen_ai.usage.prompt_tokens"].int_value,
                    told["gen_ai.usage.completion_tokens"].int_value,
                )
            )
    return found


async def test_vllm_exports_spans(receiver: Receiver) -> None:
    feed = FeedOptions(
        otlp_endpoint=f"{receiver.url}/v1/traces",
        otlp_headers=(("Authorization", "Bearer slf_1"),),
        batch_s=60,
    )
    with start_engine("vllm", tokens_per_s=0, feed=feed) as engine:
        named = {"X-Request-Id": "gw-1"}
        await ask(engine, chat(sim(prompt=10, tokens=5), n=2), headers=named)
        body = {"model": "sim-model", "prompt": ["a b", "c"], "max_tokens": 2}
        await ask(engine, body, headers={"X-Request-Id": "gw-2"}, path="/v1/completions")
        assert engine.feed_state()["pending"] == {"vllm_otlp": 4}
        engine.flush_feeds()
        assert engine.feed_state() == {"files": {}, "pushed": {"vllm_otlp": 4}, "pending": {"vllm_otlp": 0}}
    ((path, headers, sent),) = receiver.received
    assert path == "/v1/traces"
    assert (headers["content-type"], headers["authorization"]) == ("application/x-protobuf", "Bearer slf_1")
    assert spans_in(sent) == [
        *[("chatcmpl-gw-1", 10, 5)] * 2,
        *[("cmpl-gw-2-0", 2, 2), ("cmpl-gw-2-1", 1, 2)],
    ]


async def test_spans_in_json_are_sent_at_the_end(receiver: Receiver) -> None:
    feed = FeedOptions(otlp_endpoint=f"{receiver.url}/t", otlp_encoding="json", batch_s=60)
    with start_engine("vllm", tokens_per_s=0, feed=feed) as engine:
        await ask(engine, chat(sim(prompt=10, tokens=5)))
    ((_, headers, sent),) = receiver.received
    assert headers["content-type"] == "application/json"
    (span,) = json.loads(sent)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["name"] == "llm_request"


async def test_signed_events_are_tried_again_and_faults_are_booked(receiver: Receiver) -> None:
    receiver.statuses = [503]
    feed = FeedOptions(
        push_url=f"{receiver.url}/ingest/v1/some/cloudevents",
        push_secret="slf_secret",
        push_headers=(("X-Centre", "one"),),
        push_source="/centre/node-1",
        batch_s=60,
    )
    with start_engine("generic", tokens_per_s=0, feed=feed) as engine:
        for fault in ("lost", "doubled", "garbage", None):
            if fault is not None:
                engine.fail_next_record(fault)
            await ask(engine, chat(sim(prompt=10, tokens=5)))
        engine.flush_feeds()
        lost, doubled, garbage, whole = (record["wire_id"] for record in engine.requests())
        assert [(entry["fault"], entry["wire_id"]) for entry in engine.faults()] == [
            *(("lost", lost), ("doubled", doubled), ("garbage", garbage)),
        ]
        receiver.statuses = [401]
        await ask(engine, chat(sim(prompt=10, tokens=5)))
        engine.flush_feeds()
        assert engine.faults()[-1]["fault"] == "undelivered"
        assert engine.faults()[-1]["details"] == {"answer": "401"}
    refused, taken, _ = receiver.received
    assert refused[2] == taken[2]
    path, headers, sent = taken
    assert path == "/ingest/v1/some/cloudevents"
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert headers["x-centre"] == "one"
    message = headers["sluice-timestamp"].encode() + b".." + sent
    digest = hmac.new(b"slf_secret", message, hashlib.sha256).hexdigest()
    assert headers["sluice-signature"] == f"v1={digest}"
    events = json.loads(sent)
    ids = [event["data"]["wire_id"] for event in events]
    assert (ids[:2], ids[3:]) == ([doubled, doubled], [garbage, whole])
    assert events[2]["data"]["prompt_tokens"] < 0
    assert events[0]["id"] == events[1]["id"] != events[3]["id"]


@pytest.mark.parametrize(("form", "content_type"), [("ndjson", "application/x-ndjson"), ("csv", "text/csv")])
async def test_lines_are_pushed(receiver: Receiver, form: Any, content_type: str) -> None:
    feed = FeedOptions(push_url=receiver.url, push_format=form, batch_s=0.05, faults=FeedFaults(seed=1))
    with start_engine("generic", tokens_per_s=0, feed=feed) as engine:
        await ask(engine, chat(sim(prompt=10, tokens=5)))
        engine.flush_feeds()
    ((path, headers, sent),) = receiver.received
    assert (path, headers["content-type"]) == ("/", content_type)
    assert sent.endswith(b"\n")
    assert sent.count(b"\n") == (2 if form == "csv" else 1)
