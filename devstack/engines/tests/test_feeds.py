"""Feeds of running engines: they say of each call what the books say, nothing where engines are silent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.engines.feeds.faults import FeedFaults
from devstack.engines.feeds.options import FeedOptions
from devstack.engines.options import Flavour
from devstack.engines.testing import EngineStartError, RunningEngine, sim, start_engine
from devstack.engines.tests.raw import RawClient, ask, chat, streamed

Feeding = Callable[..., RunningEngine]


@pytest.fixture
def feeding(tmp_path: Path) -> Iterator[Feeding]:
    """Starts an unpaced engine that writes its feed files into `tmp_path / "feed"`."""
    running: list[RunningEngine] = []

    def start(flavour: Flavour, *, embeddings: bool = False, **options: Any) -> RunningEngine:
        feed = FeedOptions(directory=tmp_path / "feed", **options)
        running.append(
            start_engine(
                flavour,
                tokens_per_s=0,
                embeddings=embeddings,
                books_file=tmp_path / "books.jsonl",
                feed=feed,
                seed=7,
            )
        )
        return running[-1]

    yield start
    for engine in running:
        engine.stop()


def lines_of(engine: RunningEngine, name: str) -> list[bytes]:
    """The lines of the file that is being written, none when there is none yet."""
    path = engine.feed_state()["files"].get(name)
    return [] if path is None else Path(path).read_bytes().splitlines()


def log_of(engine: RunningEngine) -> list[dict[str, Any]]:
    """The objects in SGLang's log."""
    return [json.loads(line.partition(b"] ")[2]) for line in lines_of(engine, "sglang_log")]


def told_in(engine: RunningEngine, name: str) -> list[dict[str, Any]]:
    """All true records of a feed, in the books' order."""
    return [told for record in engine.requests() for told in record["told"].get(name, [])]


async def leave_early(engine: RunningEngine, **fields: Any) -> None:
    """A stream whose client goes after some events."""
    async with await RawClient.connect(engine) as client:
        await client.send(streamed(sim(prompt=10, tokens=1000, rate=100), **fields))
        await client.read_events(6)
    engine.wait_idle()


async def test_sglang_writes_both_files(feeding: Feeding) -> None:
    engine = feeding("sglang", formats=("sglang_log", "sglang_export"))
    for text, fields in (
        (sim(prompt=10, cached=4, tokens=5), {"rid": "gw-1", "max_tokens": 50}),
        (sim(prompt=11, tokens=9, reasoning=3), {"rid": "gw-2", "max_tokens": 9}),
    ):
        await ask(engine, streamed(text, **fields), headers={"X-Request-Id": "x-1"})
    log = log_of(engine)
    assert [(line["event"], line["rid"]) for line in log] == [
        ("request.received", "gw-1"),
        ("request.finished", "gw-1"),
        ("request.received", "gw-2"),
        ("request.finished", "gw-2"),
    ]
    assert log[1]["headers"] == {"x-request-id": "x-1"}
    exported = [json.loads(line) for line in lines_of(engine, "sglang_export")]
    assert [line["out"]["meta_info"] for line in log[1::2]] == [
        {key: value for key, value in line.items() if key != "request_parameters"} for line in exported
    ]
    counts = [
        (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"], line["reasoning_tokens"])
        for line in exported
    ]
    assert counts == [(10, 4, 5, 0), (11, 0, 9, 3)]
    assert [line["finish_reason"]["type"] for line in exported] == ["stop", "length"]
    assert counts == [
        (told["prompt_tokens"], told["cached_tokens"], told["completion_tokens"], told["reasoning_tokens"])
        for told in told_in(engine, "sglang_export")
    ]


async def test_sglang_says_nothing_of_a_client_that_left(feeding: Feeding) -> None:
    engine = feeding("sglang", formats=("sglang_log", "sglang_export"))
    await leave_early(engine, rid="gw-cut")
    assert [(line["event"], line["rid"]) for line in log_of(engine)] == [("request.received", "gw-cut")]
    assert lines_of(engine, "sglang_export") == []
    (record,) = engine.requests()
    assert record["generated_tokens"] > 0
    assert record["told"] == {"sglang_log": [], "sglang_export": []}


async def test_sglang_loses_the_id_of_several_choices(feeding: Feeding) -> None:
    engine = feeding("sglang")
    answer = await ask(engine, chat(sim(prompt=10, tokens=3), n=2, rid="gw-n"))
    received, *finished = log_of(engine)
    assert received["rid"] == ["gw-n_0", "gw-n_1"]
    counts = [line["out"]["meta_info"]["completion_tokens"] for line in finished]
    assert counts == [0, 3, 3]
    ids = [line["rid"] for line in finished]
    assert len(set(ids)) == 3
    assert not any(rid.startswith("gw-n") for rid in ids)
    assert answer.json()["id"] in ids
    metrics = engine.metrics()
    assert sum(value for series, value in metrics.items() if "prompt_tokens_total" in series) == 30


async def test_sglang_numbers_prompts_and_takes_lists_of_ids(feeding: Feeding) -> None:
    engine = feeding("sglang", embeddings=True)
    await ask(
        engine,
        {"model": "m", "prompt": ["a b", "c"], "max_tokens": 2, "rid": "gw-p"},
        path="/v1/completions",
    )
    await ask(
        engine,
        {"model": "m", "input": ["one two", "three"], "rid": ["gw-e_0", "gw-e_1"]},
        path="/v1/embeddings",
    )
    finished = [line for line in log_of(engine) if line["event"] == "request.finished"]
    assert [(line["rid"], line["out"]["meta_info"]["prompt_tokens"]) for line in finished] == [
        *(("gw-p_0", 2), ("gw-p_1", 1)),
        *(("gw-e_0", 2), ("gw-e_1", 1)),
    ]
    assert [line["out"]["meta_info"].get("completion_tokens") for line in finished] == [2, 2, None, None]


async def test_vllm_writes_a_line_for_each_answer(feeding: Feeding) -> None:
    engine = feeding("vllm")
    await ask(engine, chat(sim(prompt=10, cached=4, tokens=5)), headers={"X-Request-Id": "gw-1"})
    await ask(engine, streamed(sim(prompt=10, cached=4, tokens=5), n=2))
    await leave_early(engine)
    await ask(engine, chat("no such model") | {"model": "other"})
    plain, stream, cut = (json.loads(line) for line in lines_of(engine, "vllm_middleware"))
    assert (plain["request_id"], plain["x_request_id"], plain["whole"]) == ("chatcmpl-gw-1", "gw-1", True)
    assert plain["usage"] == {
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 5,
        "reasoning_tokens": None,
    }
    # All choices together, the prompt once; of a stream of chats cached tokens are not told.
    assert (stream["usage"]["prompt_tokens"], stream["usage"]["completion_tokens"]) == (10, 10)
    assert stream["usage"]["cached_tokens"] is None
    assert stream["x_request_id"] is None
    assert (cut["whole"], cut["usage"]) == (False, None)


async def test_a_generic_engine_tells_of_what_broke_off(feeding: Feeding) -> None:
    engine = feeding("generic", formats=("ndjson", "csv"))
    await ask(engine, chat(sim(prompt=10, tokens=5)))
    await leave_early(engine)
    whole, cut = (json.loads(line) for line in lines_of(engine, "ndjson"))
    first, second = engine.requests()
    assert (whole["wire_id"], whole["finish"], whole["completion_tokens"]) == (first["wire_id"], "stop", 5)
    assert (cut["finish"], cut["completion_tokens"]) == ("abort", second["generated_tokens"])
    header, *rows = lines_of(engine, "csv")
    assert [row.split(b",")[1].decode() for row in rows] == [first["wire_id"], second["wire_id"]]
    assert header.startswith(b"event_id,wire_id,part,prompt_tokens,cached_tokens,completion_tokens")


def test_a_feed_that_the_flavour_has_not(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="llamacpp does not write ndjson"):
        start_engine("llamacpp", feed=FeedOptions(directory=tmp_path, formats=("ndjson",)))
    with pytest.raises(EngineStartError, match="exports no spans"):
        start_engine("sglang", feed=FeedOptions(otlp_endpoint="http://127.0.0.1:9/v1/traces"))


# Faults.


async def test_chosen_faults_befall_the_next_record(feeding: Feeding) -> None:
    engine = feeding("generic")
    for fault in ("lost", "doubled", "cut", "garbage", "rotate_mid_line", None):
        if fault is not None:
            engine.fail_next_record(fault)
        await ask(engine, chat(sim(tokens=2)))
    injected = engine.faults()
    records = engine.requests()
    assert [(entry["fault"], entry["wire_id"]) for entry in injected] == [
        (fault, record["wire_id"])
        for fault, record in zip(
            ("lost", "doubled", "cut", "garbage", "rotate_mid_line"), records, strict=False
        )
    ]
    path = Path(engine.feed_state()["files"]["ndjson"])
    aside = path.with_name(injected[-1]["details"]["aside"])
    everything = b"".join(file.read_bytes() for file in (aside, path))
    lost, doubled, cut, garbage, rotated, whole = (
        everything.count(f'"{record["wire_id"]}"'.encode()) for record in records
    )
    assert (lost, doubled, garbage, rotated, whole) == (0, 2, 1, 1, 1)
    assert cut in (0, 1)
    assert engine.faults(since=len(injected)) == []


async def _serve(engine: RunningEngine, count: int) -> list[tuple[str, str | None]]:
    for number in range(count):
        await ask(engine, chat(sim(prompt=5, tokens=3), rid=f"gw-{number}"))
    return [(entry["fault"], entry["wire_id"]) for entry in engine.faults()]


async def test_the_dice_of_a_seed_fall_alike(tmp_path: Path) -> None:
    faults = FeedFaults(seed=11, lost=0.2, doubled=0.2, foreign=0.2, wrong_usage=0.2, counter_reset=0.1)
    seen = []
    for name in ("a", "b"):
        feed = FeedOptions(directory=tmp_path / name, faults=faults)
        with start_engine("sglang", tokens_per_s=0, feed=feed, seed=3) as engine:
            seen.append(await _serve(engine, 40))
    assert seen[0] == seen[1]
    assert {fault for fault, _ in seen[0]} == {"lost", "doubled", "foreign", "wrong_usage", "counter_reset"}


async def test_a_lie_stands_in_the_answer_only(feeding: Feeding) -> None:
    engine = feeding("sglang", faults=FeedFaults(seed=1, wrong_usage=1.0))
    answer = await ask(engine, chat(sim(prompt=10, tokens=30), rid="gw-1"))
    (entry,) = engine.faults()
    reported = answer.json()["usage"]["completion_tokens"]
    assert entry["details"] == {"reported": reported, "generated": 30}
    assert reported != 30
    _, finished = log_of(engine)
    assert finished["out"]["meta_info"]["completion_tokens"] == 30


async def test_strangers_are_in_counters_and_feed(feeding: Feeding) -> None:
    engine = feeding("sglang")
    engine.bypass(prompt_tokens=100, completion_tokens=40, cached_tokens=30, count=2)
    metrics = {series.partition("{")[0]: value for series, value in engine.metrics().items()}
    assert metrics["sglang:prompt_tokens_total"] == 200
    assert metrics["sglang:generation_tokens_total"] == 80
    assert engine.requests() == []
    finished = [line for line in log_of(engine) if line["event"] == "request.finished"]
    assert [(entry["fault"], entry["wire_id"]) for entry in engine.faults()] == [
        ("foreign", line["rid"]) for line in finished
    ]
    assert engine.faults()[0]["details"] == {
        "prompt_tokens": 100,
        "cached_tokens": 30,
        "completion_tokens": 40,
    }
    with pytest.raises(ValueError, match="below 0"):
        engine.bypass(prompt_tokens=-1, completion_tokens=0)


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "sglang"])
async def test_a_restart_loses_what_is_open(flavour: Flavour) -> None:
    with start_engine(flavour, tokens_per_s=100, slots=1) as engine:
        await ask(engine, chat(sim(prompt=10, tokens=2)))
        async with await RawClient.connect(engine) as client, await RawClient.connect(engine) as other:
            await client.send(streamed(sim(tokens=1000)))
            await client.read_events(3)
            await other.send(streamed(sim(tokens=5)))
            engine.wait_running(2)
            engine.restart()
            assert (await client.read()).ending in ("closed", "reset")
            assert (await other.read()).ending in ("closed", "reset")
        engine.wait_idle()
        counted = {
            series: value
            for series, value in engine.metrics().items()
            if "tokens_total" in series and "seconds" not in series
        }
        assert not any(counted.values())
        (entry,) = engine.faults()
        assert (entry["fault"], entry["details"]) == ("restart", {"lost_calls": 2})
        assert [record["ended"] for record in engine.requests()] == ["stop", "stopped", "stopped"]
        # The slot is free again, and counts begin at nought.
        await ask(engine, chat(sim(prompt=10, tokens=2)))
        assert any(value == 2 for value in engine.metrics().values())


async def test_counters_that_begin_anew_while_a_stream_runs() -> None:
    with start_engine("vllm", tokens_per_s=200) as engine:
        started = engine.metrics()["process_start_time_seconds"]
        async with await RawClient.connect(engine) as client:
            await client.send(streamed(sim(tokens=60)))
            await client.read_events(20)
            engine.reset_counters()
            assert (await client.read()).ending == "complete"
        metrics = engine.metrics()
        generated = next(value for series, value in metrics.items() if "generation_tokens_total" in series)
        assert 0 < generated < 60
        assert metrics["process_start_time_seconds"] == started
        assert [entry["fault"] for entry in engine.faults()] == ["counter_reset"]


async def test_the_books_are_streamed(feeding: Feeding, tmp_path: Path) -> None:
    engine = feeding("sglang", faults=FeedFaults(seed=2, lost=1.0))
    await ask(engine, chat(sim(prompt=10, tokens=2), rid="gw-1"))
    await leave_early(engine, rid="gw-2")
    facts = [json.loads(line) for line in (tmp_path / "books.jsonl").read_text().splitlines()]
    calls = [fact for fact in facts if fact["kind"] == "call"]
    faults = [fact for fact in facts if fact["kind"] == "fault"]
    streamed_keys = engine.requests()[0].keys() - {"headers", "body_bytes", "body_sha256"}
    assert [{key: call[key] for key in streamed_keys} for call in calls] == [
        {key: record[key] for key in streamed_keys} for record in engine.requests()
    ]
    assert [{key: fault[key] for key in fault if key != "kind"} for fault in faults] == engine.faults()
    assert calls[0]["told"]["sglang_log"][0]["wire_id"] == faults[0]["wire_id"] == "gw-1"
