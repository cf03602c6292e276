"""The adapters against what real engines were recorded to answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models_catalog.engines import ADAPTERS, Endpoint, EngineAdapter, EngineCall, UsageReport
from models_catalog.engines.fields import RESERVED_FIELDS
from portal.kit.sse import event_data

CAPTURES: dict[str, dict[str, Any]] = {
    engine: json.loads((Path(__file__).parent / "captures" / f"{engine}.json").read_text())
    for engine in ("llamacpp", "vllm", "sglang")
}

# Prompt, cached, completion and reasoning tokens, and whether it is the engine's last word; None: no usage.
Counts = tuple[int, int, int, int, bool]
EXPECTED: dict[str, dict[str, Counts | None]] = {
    "llamacpp": {
        "chat_plain": (37, 0, 24, 0, True),
        "chat_plain_repeat": (37, 36, 24, 0, True),
        "chat_long_repeat_cached": (873, 872, 8, 0, True),
        "chat_json_schema": (37, 24, 27, 0, True),
        "limits/npredict12_maxtokens5": (38, 37, 12, 0, True),
        "chat_stream_include_usage": (34, 33, 20, 0, True),
        "chat_stream_no_usage": (34, 24, 20, 0, False),
        "chat_stream_timings_per_token": (37, 27, 20, 0, True),
        "chat_stream_timings_no_include_usage": (34, 26, 12, 0, False),
        "chat_tools_stream": (34, 33, 60, 0, True),
        "disconnect/stream_cut_after_5_events": (47, 24, 5, 0, False),
        "shutdown/sigterm_mid_stream": (37, 26, 9, 0, False),
    },
    "vllm": {
        "chat_plain_request_id": (18, 0, 16, 0, True),
        "chat_long_repeat_cached": (654, 640, 8, 0, True),
        "chat_json_schema": (14, 0, 37, 0, True),
        "force_include_usage/chat_plain_no_details_flag": (16, 0, 6, 0, True),
        "chat_long_repeat_cached_stream": (654, 640, 8, 0, True),
        "chat_stream_include_usage": (16, 0, 12, 0, True),
        "chat_stream_no_usage": None,
        "chat_stream_continuous_usage": (16, 0, 12, 0, True),
        "force_include_usage/chat_stream_no_stream_options": (16, 0, 6, 0, True),
        "disconnect/stream_cut_after_5_events": (17, 0, 5, 0, False),
        "shutdown/engine_core_sigkill_mid_stream": (23, 0, 19, 0, False),
    },
    "sglang": {
        "chat_plain_rid": (18, 0, 16, 0, True),
        "chat_header_override_without_env": (14, 0, 3, 0, True),
        "chat_long_repeat_cached": (654, 653, 8, 0, True),
        "limits_max_tokens0": (14, 4, 0, 0, True),
        "chat_stream_include_usage": (16, 4, 12, 0, True),
        "chat_stream_no_usage": None,
        "chat_stream_continuous_usage": (16, 15, 12, 0, True),
        "disconnect/stream_cut_after_5_events": (17, 4, 5, 0, False),
        "shutdown/sigterm_mid_stream": (18, 4, 1900, 0, True),
        "shutdown/scheduler_sigkill_mid_stream": (19, 0, 20, 0, False),
    },
}
CASES = [(engine, name) for engine, names in EXPECTED.items() for name in names]


def read_last(
    adapter: EngineAdapter, capture: dict[str, Any]
) -> tuple[list[UsageReport], UsageReport | None]:
    """Every report on the way, as the gateway reads them, and the last."""
    if "answer" in capture:
        report = adapter.read_usage(json.dumps(capture["answer"]).encode())
        return [], report
    reports: list[UsageReport] = []
    for text in capture["events"]:
        event = text.encode()
        data = event_data(event)
        report = adapter.read_usage(data) if data is not None else None
        assert adapter.reports_usage(event) == (report is not None), (
            "the cheap look and the careful one agree"
        )
        if report is not None:
            reports.append(report)
    return reports[:-1], reports[-1] if reports else None


def test_every_capture_has_its_counts() -> None:
    assert {engine: set(names) for engine, names in EXPECTED.items()} == {
        engine: set(captures) for engine, captures in CAPTURES.items()
    }


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_the_recorded_counts_are_read(engine: str, name: str) -> None:
    running, last = read_last(ADAPTERS[engine], CAPTURES[engine][name])
    expected = EXPECTED[engine][name]
    assert last == (None if expected is None else UsageReport(*expected))
    assert not any(report.is_final for report in running)
    counts = [report.completion_tokens for report in running]
    assert counts == sorted(counts), "running counts only grow"


@pytest.mark.parametrize("name", [name for engine, name in CASES if engine != "llamacpp"])
def test_any_compatible_server_is_read_the_same(name: str) -> None:
    """The generic adapter reads OpenAI's usage, whoever sends it."""
    engine = next(engine for engine, known in CASES if known == name and engine != "llamacpp")
    expected = EXPECTED[engine][name]
    _, last = read_last(ADAPTERS["generic"], CAPTURES[engine][name])
    assert last == (None if expected is None else UsageReport(*expected))


def test_llama_timings_stand_in_for_usage() -> None:
    """A stream that nobody asked for usage still ends in timings, and each token's event carries them."""
    adapter = ADAPTERS["llamacpp"]
    timings = b'"timings":{"cache_n":3,"prompt_n":4,"predicted_n":2}'
    event = b'data: {"choices":[{"delta":{"content":"a"}}],' + timings + b"}\n\n"
    assert adapter.reports_usage(event)
    assert not ADAPTERS["generic"].reports_usage(event)
    data = event_data(event)
    assert data is not None
    assert adapter.read_usage(data) == UsageReport(7, 3, 2, 0, is_final=False)


@pytest.mark.parametrize("engine", ADAPTERS)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ('{"prompt_tokens":5,"completion_tokens":3}', (5, 0, 3, 0)),
        ('{"prompt_tokens":5,"completion_tokens":null}', (5, 0, 0, 0)),
        ('{"prompt_tokens":5}', (5, 0, 0, 0)),
        ('{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":null}', (5, 0, 3, 0)),
        (
            '{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":null}}',
            (5, 0, 3, 0),
        ),
        (
            '{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}',
            (5, 4, 3, 0),
        ),
        (
            '{"prompt_tokens":5,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":2}}',
            (5, 0, 3, 2),
        ),
        (
            '{"prompt_tokens":5,"completion_tokens":3,"reasoning_tokens":2,"completion_tokens_details":null}',
            (5, 0, 3, 2),
        ),
        ("null", None),
        ('"5"', None),
        ('{"prompt_tokens":"5"}', None),
        ('{"completion_tokens":3}', None),
    ],
)
def test_forms_of_usage(engine: str, usage: str, expected: tuple[int, int, int, int] | None) -> None:
    data = f'{{"object":"chat.completion.chunk","choices":[],"usage":{usage}}}'.encode()
    report = ADAPTERS[engine].read_usage(data)
    assert report == (None if expected is None else UsageReport(*expected, is_final=True))


@pytest.mark.parametrize("engine", ADAPTERS)
@pytest.mark.parametrize(
    "data", [b"", b"[DONE]", b"\xff", b'{"usage":{"prompt_tokens":1,"x":"\xff"}}', b"[" * 10_000, b"42"]
)
def test_nonsense_has_no_usage(engine: str, data: bytes) -> None:
    ADAPTERS[engine].reports_usage(data)
    ADAPTERS[engine].read_usage(data)


@pytest.mark.parametrize("engine", ADAPTERS)
def test_text_cannot_pretend_to_be_usage(engine: str) -> None:
    text = msgspec.json.encode('"usage": {"prompt_tokens": 0}, "timings": {}')
    assert not ADAPTERS[engine].reports_usage(b'data: {"choices":[{"delta":{"content":' + text + b"}}]}\n\n")


# What is sent.


def sent(
    engine: str, *, stream: bool, fields: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, str], dict[str, Any]]:
    content = {"messages": [{"role": "user", "content": "hi"}]}
    call = EngineCall(Endpoint.CHAT, "att_1", "upstream", content, fields or {}, 17, stream)
    upstream = ADAPTERS[engine].write(call)
    return upstream.path, dict(upstream.headers), json.loads(upstream.body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("engine", ADAPTERS)
def test_the_attempt_id_is_handed_over(engine: str, stream: bool) -> None:
    """To all in a header, whether they heed it or not, and to one in the body."""
    path, headers, body = sent(engine, stream=stream)
    assert path == "/v1/chat/completions"
    assert headers["X-Request-Id"] == "att_1"
    assert body.get("rid") == ("att_1" if engine == "sglang" else None)
    assert "X-Conversation-Id" not in headers


@pytest.mark.parametrize("engine", ADAPTERS)
def test_usage_is_always_asked_for(engine: str) -> None:
    _, _, plain = sent(engine, stream=False)
    _, _, streamed = sent(engine, stream=True)
    assert "stream_options" not in plain
    assert streamed["stream_options"]["include_usage"] is True
    continuous = streamed["stream_options"].get("continuous_usage_stats", False)
    assert continuous is (engine in ("vllm", "sglang"))
    assert streamed.get("timings_per_token", False) is (engine == "llamacpp")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("engine", ADAPTERS)
def test_reserved_fields_are_ours(engine: str, stream: bool) -> None:
    """Whatever was let through, caps and ids are ours, and what would beat them is never sent."""
    theirs = dict.fromkeys(RESERVED_FIELDS, "theirs")
    _, _, body = sent(engine, stream=stream, fields={**theirs, "temperature": 0.5})
    assert "theirs" not in body.values()
    assert "n_predict" not in body
    assert "max_completion_tokens" not in body
    assert (body["model"], body["max_tokens"], body["stream"]) == ("upstream", 17, stream)
    assert body["temperature"] == 0.5


def test_only_llama_closes_after_each_stream() -> None:
    assert [name for name, adapter in ADAPTERS.items() if not adapter.reuses_connections] == ["llamacpp"]
