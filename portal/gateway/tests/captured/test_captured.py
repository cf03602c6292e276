"""What real engines answered, through the real gateway: what the client gets, and what is charged for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
import pytest

from portal.gateway.tests.captured.replaying import (
    CAPTURES,
    Capture,
    body_for,
    renamed,
    replay,
    replaying,
    shown,
)
from portal.gateway.tests.stage import Stage, Stored, cost_nanos, held_nanos, make_stage, stored
from portal.kit.ids import PREFIXES, parse_public_id
from portal.kit.sse import event_data
from tests.gateway_process import RunningGateway, client
from tests.waiting import wait_for

# Prompt, cached and completion tokens: what the engine said, as it counts them on that endpoint. None for the
# prompt where nothing was said of it, so that it is estimated.
Counts = tuple[int | None, int, int]

COMPLETE: dict[str, dict[str, Counts]] = {
    "llamacpp": {
        "chat_plain": (37, 0, 24),
        "chat_plain_repeat": (37, 36, 24),
        "chat_long_first": (873, 24, 8),
        "chat_long_repeat_cached": (873, 872, 8),
        "chat_long_repeat_cache_prompt_false": (873, 0, 8),
        "chat_json_schema": (37, 24, 27),
        "chat_tools": (34, 24, 60),
        "chat_stream_include_usage": (34, 33, 20),
        "chat_stream_timings_per_token": (37, 27, 20),
        "chat_stream_return_progress": (633, 24, 1),
        "completions_plain": (4, 0, 8),
        "responses_plain": (33, 32, 8),
        "responses_stream": (33, 32, 8),
        # The input is counted without what was cached.
        "messages_plain": (33, 32, 8),
        "messages_stream": (33, 32, 8),
        "limits/npredict12_maxtokens5": (38, 37, 12),
        "limits/max_tokens0": (38, 37, 1),
        "errors/unknown_model": (31, 30, 4),
        "errors/unknown_field": (31, 24, 4),
    },
    "vllm": {
        "chat_plain_request_id": (18, 0, 16),
        "chat_plain_no_request_id": (21, 0, 8),
        "chat_body_and_header_request_id": (21, 0, 8),
        "chat_long_first": (654, 0, 8),
        "chat_long_repeat_cached": (654, 640, 8),
        "chat_long_repeat_cached_stream": (654, 640, 8),
        "chat_json_schema": (14, 0, 37),
        "chat_stream_include_usage": (16, 0, 12),
        "chat_stream_continuous_usage": (16, 0, 12),
        "completions_plain": (6, 0, 8),
        "completions_stream_usage": (6, 0, 8),
        "completions_echo_max0": (6, 0, 1),
        "responses_plain": (17, 0, 8),
        "responses_stream": (17, 0, 8),
        "messages_plain": (17, 0, 8),
        "messages_stream": (17, 0, 8),
        "messages_long_cached": (654, 640, 8),
        "force_include_usage/chat_plain_no_details_flag": (16, 0, 6),
        "force_include_usage/chat_stream_include_usage_false": (16, 0, 6),
        "force_include_usage/chat_stream_no_stream_options": (16, 0, 6),
        "force_include_usage/completions_stream_no_stream_options": (4, 0, 6),
        "limits/no_max_tokens_default": (14, 0, 1),
        "errors/unknown_field": (14, 0, 4),
    },
    "sglang": {
        "chat_plain_rid": (18, 0, 16),
        "chat_plain_no_rid_x_request_id": (18, 17, 8),
        "chat_header_x_override_rid": (18, 17, 8),
        "chat_long_first": (654, 4, 8),
        "chat_long_repeat_cached": (654, 653, 8),
        "chat_stream_include_usage": (16, 4, 12),
        "chat_stream_continuous_usage": (16, 15, 12),
        "responses_plain": (17, 16, 6),
        # Cut by its cap, it ends in response.incomplete.
        "responses_stream": (17, 4, 4),
        "messages_plain": (17, 4, 8),
        # Says nothing of the cache: at the beginning it is not known, and in the end not told.
        "messages_stream": (17, 0, 6),
        "limits_max_tokens0": (14, 4, 0),
        "errors/unknown_field": (14, 13, 4),
        "errors/unknown_model": (14, 13, 4),
        "export_without_log_requests/chat_plain": (22, 0, 6),
    },
}
# Answers that end without the usage that was asked for: what ran along counts, else the events.
UNCOUNTED: dict[str, dict[str, tuple[Counts, str]]] = {
    "llamacpp": {
        "chat_stream_no_usage": ((34, 24, 20), "CHECKPOINT"),
        "chat_stream_timings_no_include_usage": ((34, 26, 12), "CHECKPOINT"),
    },
    "vllm": {
        # Of the twelve tokens some are halves of a character, and their events say nothing yet.
        "chat_stream_no_usage": ((None, 0, 11), "EVENTS"),
        "chat_stream_continuous_without_include": ((None, 0, 10), "EVENTS"),
    },
    "sglang": {
        "chat_stream_no_usage": ((None, 0, 12), "EVENTS"),
        "chat_stream_continuous_only": ((16, 15, 12), "CHECKPOINT"),
    },
}


def cases(table: dict[str, dict[str, Any]], *, streams: bool | None = None) -> list[Any]:
    chosen = [
        (CAPTURES[engine][name], expected)
        for engine, rows in table.items()
        for name, expected in rows.items()
    ]
    return [
        pytest.param(capture, expected, id=str(capture))
        for capture, expected in chosen
        if streams is None or capture.is_stream is streams
    ]


@pytest.fixture(scope="module")
def stages(gateway: RunningGateway) -> Iterator[dict[str, Stage]]:
    """One model on a backend of each engine. Nothing here makes a backend look broken."""
    with ExitStack() as stack:
        backends = {engine: stack.enter_context(replaying(engine)) for engine in CAPTURES}
        yield {engine: make_stage(gateway, (engine, backend.url)) for engine, backend in backends.items()}


def check_charged(
    kept: Stored, counts: Counts, *, basis: str, outcome: str, provenance: str = "MEASURED"
) -> None:
    """The facts are those counts, and the price is theirs to the nano-unit."""
    prompt, cached, completion = counts
    assert kept.outcomes == [outcome]
    assert kept.hold["state"] == "POSTED"
    assert kept.usage is not None
    found = {name: kept.usage[f"{name}_tokens"] for name in ("prompt", "cached", "completion")}
    expected_prompt = found["prompt"] if prompt is None else prompt
    assert found == {"prompt": expected_prompt, "cached": cached, "completion": completion}
    assert (kept.usage["basis"], kept.usage["provenance"]) == (basis, provenance)
    assert kept.usage["charged_nanos"] == cost_nanos(expected_prompt, completion, cached=cached)
    assert kept.usage["overrun_nanos"] == 0
    (attempt,) = kept.attempts
    assert attempt["http_status"] == 200


@pytest.mark.parametrize(("capture", "counts"), cases(COMPLETE, streams=False))
def test_whole_answers(stages: dict[str, Stage], capture: Capture, counts: Counts) -> None:
    stage = stages[capture.engine]
    answer = replay(stage, capture)
    assert answer.status == 200
    recorded = json.loads(capture.body)
    assert renamed(stage, answer.json) == renamed(stage, recorded)
    assert answer.json["model"] == stage.model.slug
    kept = stored(answer.request_id)
    check_charged(kept, counts, basis="FINAL_USAGE", outcome="COMPLETED")
    assert kept.attempts[0]["wire_id"] == recorded["id"]


@pytest.mark.parametrize(("capture", "counts"), cases(COMPLETE, streams=True))
@pytest.mark.parametrize("include_usage", [True, False])
def test_streams(stages: dict[str, Stage], capture: Capture, counts: Counts, include_usage: bool) -> None:
    """Every event arrives as it was, but for the one that only reports usage where nobody asked for it."""
    stage = stages[capture.engine]
    answer = replay(stage, capture, include_usage=include_usage)
    assert answer.status == 200
    expected = [event for event in capture.events if include_usage or not only_reports_usage(event)]
    assert [shown(stage, event) for event in answer.events] == [shown(stage, event) for event in expected]
    assert b'"model":"tiny"' not in answer.body
    check_charged(stored(answer.request_id), counts, basis="FINAL_USAGE", outcome="COMPLETED")


def only_reports_usage(event: bytes) -> bool:
    data = event_data(event)
    return data is not None and data != b"[DONE]" and json.loads(data).get("choices") == []


@pytest.mark.parametrize(("capture", "expected"), cases(UNCOUNTED))
def test_streams_without_the_last_usage(
    stages: dict[str, Stage], capture: Capture, expected: tuple[Counts, str]
) -> None:
    answer = replay(stages[capture.engine], capture)
    assert answer.is_done
    counts, basis = expected
    provenance = "MEASURED" if basis == "CHECKPOINT" else "ESTIMATED"
    check_charged(stored(answer.request_id), counts, basis=basis, outcome="COMPLETED", provenance=provenance)


# Refusals and errors: status, code and outcome.

REFUSED = (400, "backend_refused", "BACKEND_REFUSED")
TOO_LONG = (400, "context_length_exceeded", "BACKEND_REFUSED")
BROKEN = (502, "backend_failed", "BACKEND_FAILED")
# The engine is well, but was not started for this endpoint.
NOT_OFFERED = (400, "endpoint_not_offered", "BACKEND_REFUSED")
ERRORS: dict[str, dict[str, tuple[int, str, str]]] = {
    "llamacpp": {
        "embeddings": NOT_OFFERED,
        "errors/bad_json": REFUSED,
        "errors/bad_schema": REFUSED,
        "errors/max_tokens_string": REFUSED,
        "errors/messages_missing": REFUSED,
        "errors/messages_wrong_type": REFUSED,
        "errors/n_too_many": REFUSED,
        "errors/prompt_too_long": TOO_LONG,
        "errors/prompt_too_long_stream": TOO_LONG,
        "errors/stream_string": REFUSED,
        "errors/unknown_path": BROKEN,
    },
    "vllm": {
        "embeddings": NOT_OFFERED,
        "limits/max_tokens0_chat": REFUSED,
        "errors/bad_json": REFUSED,
        "errors/bad_temperature": REFUSED,
        "errors/max_tokens_exceeds_context": REFUSED,
        "errors/max_tokens_string": REFUSED,
        "errors/messages_missing": REFUSED,
        "errors/prompt_too_long": TOO_LONG,
        "errors/stream_options_without_stream": REFUSED,
        "errors/tools_without_parser": REFUSED,
        "errors/unknown_model": BROKEN,
        "errors/unknown_path": BROKEN,
        "shutdown/new_request_during_drain": BROKEN,
    },
    "sglang": {
        "chat_n2_rid_list": REFUSED,
        "errors/bad_json": REFUSED,
        "errors/duplicate_live_rid": REFUSED,
        "errors/max_tokens_exceeds_context": REFUSED,
        "errors/max_tokens_string": REFUSED,
        "errors/messages_missing": REFUSED,
        "errors/prompt_too_long": TOO_LONG,
    },
}


@pytest.mark.parametrize(("capture", "expected"), cases(ERRORS))
def test_errors(gateway: RunningGateway, capture: Capture, expected: tuple[int, str, str]) -> None:
    """What is about the request is told, without paths and frames; what is about us is not the client's."""
    status, code, outcome = expected
    fields: dict[str, Any] = {"capabilities": ["embeddings"]} if capture.path == "/v1/embeddings" else {}
    with replaying(capture.engine) as backend:
        stage = make_stage(gateway, (capture.engine, backend.url), **fields)
        answer = replay(stage, capture)
    assert (answer.status, answer.error["code"]) == (status, code), answer.body
    assert b"site-packages" not in answer.body
    assert b".py" not in answer.body
    if code == "context_length_exceeded":
        assert "context" in answer.error["message"]
    kept = stored(answer.request_id)
    assert kept.outcomes == [outcome]
    assert (kept.hold["state"], kept.usage) == ("VOIDED", None)
    assert kept.attempts[0]["http_status"] == capture.status
    assert held_nanos(stage.tenant) == 0


# Streams that end in the middle.


def check_broken_off(stage: Stage, capture: Capture, code: str) -> Stored:
    """The client gets what the backend said, then an error; it pays for what it got."""
    answer = replay(stage, capture)
    assert answer.chunks[-1]["error"]["code"] == code
    assert not answer.is_done
    delivered = [event for event in capture.events if b'"error"' not in event and b"[DONE]" not in event]
    got = [shown(stage, event) for event in answer.events[:-1]]
    assert got == [shown(stage, event) for event in delivered]
    return stored(answer.request_id)


@pytest.mark.parametrize(
    ("engine", "name", "ending", "counts"),
    [
        # The connection ends without a terminating chunk: the launcher was told to stop, or the scheduler
        # was killed.
        ("llamacpp", "shutdown/sigterm_mid_stream", "closed", (37, 26, 9)),
        ("sglang", "shutdown/scheduler_sigkill_mid_stream", "closed", (19, 0, 20)),
        # The engine behind the server was killed: an error event, then [DONE] as if all were well.
        ("vllm", "shutdown/engine_core_sigkill_mid_stream", "complete", (23, 0, 19)),
    ],
)
def test_streams_that_break_off(
    gateway: RunningGateway, engine: str, name: str, ending: Any, counts: Counts
) -> None:
    with replaying(engine, ending) as backend:
        stage = make_stage(gateway, (engine, backend.url))
        kept = check_broken_off(stage, CAPTURES[engine][name], "backend_failed")
    check_charged(kept, counts, basis="CHECKPOINT", outcome="BACKEND_FAILED")


def test_a_server_that_was_told_to_stop_and_says_nothing_more(impatient_gateway: RunningGateway) -> None:
    """vLLM on SIGTERM: the connection stays open without another byte."""
    with replaying("vllm", "silent") as backend:
        stage = make_stage(impatient_gateway, ("vllm", backend.url))
        kept = check_broken_off(stage, CAPTURES["vllm"]["shutdown/sigterm_mid_stream"], "backend_timeout")
    check_charged(kept, (18, 0, 30), basis="CHECKPOINT", outcome="BACKEND_TIMEOUT")


def test_a_server_that_answers_with_a_head_and_nothing_else(impatient_gateway: RunningGateway) -> None:
    """vLLM says 200 before it knows when a slot will be free."""
    with replaying("vllm", "silent") as backend:
        stage = make_stage(impatient_gateway, ("vllm", backend.url))
        answer = replay(stage, CAPTURES["vllm"]["disconnect/cut_while_queued"])
    assert (answer.status, answer.error["code"]) == (504, "backend_timeout")
    kept = stored(answer.request_id)
    assert (kept.outcomes, kept.hold["state"], kept.usage) == (["BACKEND_TIMEOUT"], "VOIDED", None)


# Clients that leave: the recorded ones left after the last event, so nothing more comes.

CUTS: dict[str, dict[str, tuple[Counts, str]]] = {
    "llamacpp": {
        "disconnect/stream_cut_after_5_events": ((47, 24, 5), "CHECKPOINT"),
        "disconnect/stream_cut_after_5_events_rst": ((49, 41, 5), "CHECKPOINT"),
    },
    "vllm": {
        "disconnect/stream_cut_after_5_events": ((17, 0, 5), "CHECKPOINT"),
        "disconnect/stream_cut_rst": ((17, 0, 5), "CHECKPOINT"),
        "disconnect/completions_cut": ((5, 0, 5), "CHECKPOINT"),
        # No counts run along: the events are counted, and of a message the input is known.
        "disconnect/responses_stream_cut": ((None, 0, 4), "EVENTS"),
        "disconnect/messages_stream_cut": ((17, 0, 6), "EVENTS"),
    },
    "sglang": {
        "disconnect/stream_cut_after_5_events": ((17, 4, 5), "CHECKPOINT"),
        "disconnect/stream_cut_rst": ((17, 16, 5), "CHECKPOINT"),
    },
}


@pytest.fixture(scope="module")
def silent_stages(gateway: RunningGateway) -> Iterator[dict[str, Stage]]:
    with ExitStack() as stack:
        backends = {engine: stack.enter_context(replaying(engine, "silent")) for engine in CAPTURES}
        yield {engine: make_stage(gateway, (engine, backend.url)) for engine, backend in backends.items()}


@pytest.mark.parametrize(("capture", "expected"), cases(CUTS))
def test_clients_that_leave(
    silent_stages: dict[str, Stage], capture: Capture, expected: tuple[Counts, str]
) -> None:
    stage, (counts, basis) = silent_stages[capture.engine], expected
    with (
        client(stage.gateway, stage.tenant.key.token) as http,
        http.stream("POST", capture.path.removeprefix("/v1"), json=body_for(stage, capture)) as answer,
    ):
        received = b""
        for piece in answer.iter_raw():
            received += piece
            if received.count(b"\n\n") == len(capture.events):
                break
        request_id = answer.headers["x-request-id"]
    kept = stored(parse_public_id(PREFIXES["request"], request_id))
    provenance = "MEASURED" if basis == "CHECKPOINT" else "ESTIMATED"
    check_charged(kept, counts, basis=basis, outcome="CLIENT_GONE", provenance=provenance)


def test_a_client_that_leaves_before_its_turn(silent_stages: dict[str, Stage]) -> None:
    """The head was there and no token: nothing was delivered, so nothing is charged."""
    stage, capture = silent_stages["vllm"], CAPTURES["vllm"]["disconnect/cut_while_queued"]
    with (
        client(stage.gateway, stage.tenant.key.token) as http,
        pytest.raises(httpx.TimeoutException),
    ):
        http.post("/chat/completions", json=body_for(stage, capture), timeout=0.5)
    wait_for(lambda: held_nanos(stage.tenant) == 0, 10, "the hold to be given back")


def test_no_capture_is_left_out() -> None:
    """Each is in one of the tables, or in a test of its own."""
    alone = {
        ("llamacpp", "shutdown/sigterm_mid_stream"),
        ("sglang", "shutdown/scheduler_sigkill_mid_stream"),
        ("vllm", "shutdown/engine_core_sigkill_mid_stream"),
        ("vllm", "shutdown/sigterm_mid_stream"),
        ("vllm", "disconnect/cut_while_queued"),
    }
    tables: tuple[dict[str, dict[str, Any]], ...] = (COMPLETE, UNCOUNTED, ERRORS, CUTS)
    tabled = {(engine, name) for table in tables for engine, rows in table.items() for name in rows}
    assert tabled | alone == {(engine, name) for engine, captures in CAPTURES.items() for name in captures}
