"""The other endpoints' answers have the keys, types and order of recorded ones, and the books stay right."""

from __future__ import annotations

import base64
import copy
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS, Flavour
from devstack.engines.testing import RunningEngine, sim, start_engine
from devstack.engines.tests.raw import Answer, ask
from devstack.engines.tests.test_books import moved
from devstack.engines.tests.test_wire_format import shape

EngineOf = Callable[[Flavour], RunningEngine]
RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "endpoints.json").read_text()
)


def named_events(answer: Answer) -> list[tuple[str, Any]]:
    """Name and decoded data of each event; [DONE] as a name without data."""
    found = []
    for event in answer.body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        done = fields["data"] == "[DONE]"
        found.append(
            ("[DONE]" if done else fields.get("event", ""), None if done else json.loads(fields["data"]))
        )
    return found


def kind_of(name: str, data: dict[str, Any]) -> str:
    if name:
        return name
    if not data["choices"]:
        return "usage"
    return "token" if data["choices"][0]["finish_reason"] is None else "end"


@pytest.mark.parametrize("name", RECORDED)
async def test_as_recorded(engine_of: EngineOf, name: str):
    recorded = RECORDED[name]
    engine = engine_of(recorded["flavour"])
    body = copy.deepcopy(recorded["request"]) | {"model": "sim-model"}
    headers = {"X-Request-Id": recorded["request_id"]} if "request_id" in recorded else {}
    answer = await ask(engine, body, headers=headers, path=recorded["path"])
    assert answer.status == recorded["status"]
    assert {header for header, _ in answer.headers} == set(recorded["header_names"])
    if "json" in recorded:
        assert shape(answer.json()) == shape(recorded["json"])
        return
    order: list[str] = []
    seen: dict[str, Any] = {}
    for event, data in named_events(answer):
        kind = event if data is None else kind_of(event, data)
        if order[-1:] != [kind]:
            order.append(kind)
        if data is not None:
            seen.setdefault(kind, data)
    assert order == recorded["order"]
    assert {kind: shape(data) for kind, data in seen.items()} == {
        kind: shape(data) for kind, data in recorded["chunks"].items()
    }


# Ids.


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/completions", {"prompt": "hi"}, "cmpl-mine"),
        ("/v1/completions", {"prompt": ["hi", "ho"]}, "cmpl-mine"),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}, "chatcmpl-mine"),
        ("/v1/responses", {"input": "hi"}, None),
    ],
)
async def test_vllm_names_answers_after_the_header_but_no_response(
    vllm: RunningEngine, path: str, body: dict[str, Any], expected: str | None
):
    answer = await ask(vllm, body | {"model": "sim-model"}, headers={"X-Request-Id": "mine"}, path=path)
    assert answer.header("x-request-id") == "mine"
    given = answer.json()["id"]
    assert given == expected if expected else (given.startswith("resp_") and "mine" not in given)


@pytest.mark.parametrize(
    ("rid", "prompt", "expected"),
    [("a", "hi", "a"), ("a", ["hi", "ho"], "a_0"), (["x", "y"], ["hi", "ho"], "x")],
)
async def test_sglang_numbers_the_prompts(sglang: RunningEngine, rid: Any, prompt: Any, expected: str):
    answer = await ask(sglang, {"prompt": prompt, "rid": rid, "max_tokens": 2}, path="/v1/completions")
    assert answer.json()["id"] == expected


# Usage.


@pytest.mark.parametrize(
    ("flavour", "prompt_tokens", "completion_tokens", "counted"),
    [
        ("llamacpp", 4, 5, {"prompt_tokens_total": 7, "tokens_predicted_total": 10}),
        (
            "vllm",
            7,
            10,
            {"prompt_tokens_total": 7, "generation_tokens_total": 10, "request_success_total": 2},
        ),
        ("sglang", 7, 10, {"prompt_tokens_total": 7, "generation_tokens_total": 10, "num_requests_total": 2}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts(
    engine_of: EngineOf,
    flavour: Flavour,
    prompt_tokens: int,
    completion_tokens: int,
    counted: dict[str, int],
    stream: bool,
):
    """llama.cpp reports the first one only; its counters know better."""
    engine = engine_of(flavour)
    before = engine.metrics()
    body = {"model": "sim-model", "prompt": ["once upon a time", "in a galaxy"], "max_tokens": 5}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = await ask(engine, body, path="/v1/completions")
    usages = [chunk["usage"] for chunk in answer.objects() if chunk.get("usage")] if stream else []
    usage = usages[-1] if stream else answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt_tokens, completion_tokens)
    assert moved(engine, before) == counted
    (record,) = engine.requests()
    assert (record["prompt_tokens"], record["generated_tokens"], record["sent_tokens"]) == (7, 10, 10)


async def test_token_ids_are_counted(generic: RunningEngine):
    for prompt, tokens in (([5, 6, 7], 3), ([[5, 6], [7]], 3)):
        answer = await ask(generic, {"prompt": prompt, "max_tokens": 2}, path="/v1/completions")
        assert answer.json()["usage"]["prompt_tokens"] == tokens
    assert (await ask(generic, {"prompt": []}, path="/v1/completions")).status == 400
    assert (await ask(generic, {"prompt": [{}]}, path="/v1/completions")).status == 400


async def test_llamacpp_says_usage_in_the_chunk_that_ends_the_choice(llamacpp: RunningEngine):
    body = {"prompt": sim(tokens=3), "stream": True}
    answer = await ask(llamacpp, body, path="/v1/completions")
    last = answer.objects()[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] == last["timings"]["predicted_n"] == 3


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_counts_leave_out_what_was_cached(
    engine_of: EngineOf, flavour: Flavour, stream: bool
):
    engine = engine_of(flavour)
    text = sim(tokens=3, prompt=20, cached=15)
    body = {
        "model": "sim-model",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    answer = await ask(engine, body, path="/v1/messages")
    if stream:
        events = named_events(answer)
        first, last = events[0][1]["message"]["usage"], events[-2][1]["usage"]
        knows_at_once = flavour in ("llamacpp", "generic")
        assert first["input_tokens"] == (5 if knows_at_once else 20)
        assert last.get("input_tokens") == (5 if flavour in ("vllm", "generic") else None)
        usage = last
    else:
        usage = answer.json()["usage"]
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (5, 15)
    assert usage["output_tokens"] == 3
    (record,) = engine.requests()
    assert (record["prompt_tokens"], record["cached_tokens"], record["generated_tokens"]) == (20, 15, 3)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("fault", ["usage_null", "no_usage", "usage_lies:+7"])
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_can_be_missing_or_wrong(
    engine_of: EngineOf, flavour: Flavour, path: str, fault: str, stream: bool
):
    engine = engine_of(flavour)
    answer = await ask(engine, body_for(path, sim(tokens=2, fault=fault), stream=stream), path=path)
    found = usages_in(answer, path) if stream else [answer.json().get("usage", "missing")]
    if fault == "no_usage":
        assert set(map(str, found)) <= {"missing"}
    elif fault == "usage_null":
        assert found[-1] is None
    else:
        assert max(found[-1].get("completion_tokens", 0), found[-1].get("output_tokens", 0)) == 9
        assert engine.requests()[0]["reported_completion_tokens"] == 9


def body_for(path: str, text: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "sim-model", "stream": stream, **fields}
    match path:
        case "/v1/completions":
            options = {"stream_options": {"include_usage": True}} if stream else {}
            return body | {"prompt": text, **options}
        case "/v1/responses":
            return body | {"input": text}
        case _:
            return body | {"max_tokens": 1000, "messages": [{"role": "user", "content": text}]}


def usages_in(answer: Answer, path: str) -> list[Any]:
    found = []
    for name, data in named_events(answer):
        if data is None or name in ("message_start", "response.created", "response.in_progress"):
            continue
        holder = data.get("response", {}) if path == "/v1/responses" else data
        if "usage" in holder:
            found.append(holder["usage"])
    return found


# Embeddings.


@pytest.fixture(scope="module")
def embedding_engines() -> Iterator[dict[Flavour, RunningEngine]]:
    engines = {flavour: start_engine(flavour, tokens_per_s=0, embeddings=True) for flavour in FLAVOURS}
    yield engines
    for engine in engines.values():
        engine.stop()


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_embeddings(embedding_engines: dict[Flavour, RunningEngine], flavour: Flavour):
    engine = embedding_engines[flavour]
    engine.reset()
    body = {"model": "sim-model", "input": ["one two three", "four"], "dimensions": 8}
    plain = (await ask(engine, body, path="/v1/embeddings")).json()
    packed = (await ask(engine, body | {"encoding_format": "base64"}, path="/v1/embeddings")).json()
    assert [entry["index"] for entry in plain["data"]] == [0, 1]
    vectors = [entry["embedding"] for entry in plain["data"]]
    assert [
        list(struct.unpack("<8f", base64.b64decode(entry["embedding"]))) for entry in packed["data"]
    ] == vectors
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-6)
    assert vectors[0] != vectors[1]
    assert (plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"]) == (4, 4)
    assert plain.get("id", "embd-").startswith("embd-")
    for record in engine.requests():
        assert (record["prompt_tokens"], record["generated_tokens"], record["ended"]) == (4, 0, "stop")


@pytest.mark.parametrize(
    ("rid", "given", "status"),
    [
        ("a", "hi", 200),
        ("a", [5, 6], 200),
        ("a", ["hi"], 500),
        ("a", [[5, 6]], 500),
        (["a_0", "a_1"], ["hi", "ho"], 200),
        (None, ["hi", "ho"], 200),
    ],
)
async def test_sglang_wants_an_id_for_each_of_a_list_of_inputs(
    embedding_engines: dict[Flavour, RunningEngine], rid: Any, given: Any, status: int
):
    answer = await ask(embedding_engines["sglang"], {"input": given, "rid": rid}, path="/v1/embeddings")
    assert answer.status == status


async def test_only_what_was_started_for_it_embeds(engine_of: EngineOf):
    found = {
        flavour: (await ask(engine_of(flavour), {"input": "hello"}, path="/v1/embeddings")).status
        for flavour in FLAVOURS
    }
    assert found == {"llamacpp": 501, "vllm": 404, "sglang": 400, "generic": 200}


# Errors.


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_messages_have_errors_of_their_own(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    for body, status in (
        ({"max_tokens": 4}, 400),
        (body_for("/v1/messages", sim(fault="status:503")), 503),
        (body_for("/v1/messages", sim(fault="error_event_after:2")), 500),
    ):
        answer = await ask(engine, body, path="/v1/messages")
        assert answer.status == status
        assert answer.json()["type"] == "error"
        assert answer.json()["error"]["message"]
    answer = await ask(
        engine, body_for("/v1/messages", sim(fault="error_event_after:2"), stream=True), path="/v1/messages"
    )
    name, data = named_events(answer)[-1]
    assert (name, data["error"]["type"]) == ("error", "api_error")
    assert answer.ending == "complete"


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_response_that_fails_ends_in_an_error(engine_of: EngineOf, flavour: Flavour):
    body = body_for("/v1/responses", sim(fault="error_event_after:2"), stream=True)
    events = named_events(await ask(engine_of(flavour), body, path="/v1/responses"))
    assert [name for name, _ in events].count("response.output_text.delta") == 2
    assert events[-1][0] == "error"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/completions"])
async def test_a_stream_without_its_last_event(generic: RunningEngine, path: str):
    answer = await ask(generic, body_for(path, sim(tokens=2, fault="no_done"), stream=True), path=path)
    assert answer.ending == "complete"
    assert named_events(answer)[-1][0] not in ("[DONE]", "message_stop", "response.completed")


# Pages.


async def test_the_engine_tells_its_version():
    for flavour, path, read in (
        ("vllm", "/version", lambda page: page["version"]),
        ("sglang", "/get_server_info", lambda page: page["version"]),
        ("llamacpp", "/props", lambda page: page["build_info"]),
    ):
        with start_engine(flavour, version="9.9.9") as engine:  # type: ignore[arg-type]
            assert read(json.loads(engine._get(path))) == "9.9.9"
