"""Which records an engine writes of a call, in each of its feeds."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from devstack.engines.books import Ending
from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect
from devstack.engines.feeds.told import FeedFormat, Finish, Told

Kind = Literal["sglang", "vllm_middleware", "vllm_otlp", "generic"]

WHOLE: tuple[Ending, ...] = ("stop", "length")


def engine_ids(dialect: Dialect, call: Call) -> tuple[str, ...]:
    """The ids by which SGLang begins a call, one a prompt or choice. It is asked once a call."""
    request = call.request
    match request.endpoint:
        case "messages":
            # Its answer has another id, and the engine knows nothing of that.
            return (dialect.random_hex(32),)
        case "responses":
            return (call.wire_id,)
    if request.n > 1:
        name = request.client_id
        choices = range(request.n)
        return tuple(dialect.random_hex(32) if name is None else f"{name}_{choice}" for choice in choices)
    if request.client_ids:
        return request.client_ids
    more = tuple(dialect.random_hex(32) for _ in request.prompt.counts[1:])
    return (call.wire_id, *more)


def told_at_start(call: Call) -> Told:
    """What is known when a call begins."""
    return Told(
        wire_id=call.wire_id,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=None,
        received_unix=call.record.started_unix,
        stream=call.request.stream,
        path=call.record.path,
        header_id=call.header_id,
    )


def kind_of(feed: FeedFormat) -> Kind:
    """Feeds of a kind have the same records."""
    match feed:
        case "sglang_log" | "sglang_export":
            return "sglang"
        case "vllm_middleware" | "vllm_otlp":
            return feed
        case _:
            return "generic"


def records_of(kind: Kind, dialect: Dialect, call: Call, ended: Ending) -> list[Told]:
    """The records of a call that is over; none where the engine says nothing of such an end."""
    if kind == "sglang":
        return _sglang(dialect, call) if ended in WHOLE else []
    if kind == "vllm_otlp":
        return _spans(call) if ended in WHOLE and call.request.endpoint != "embeddings" else []
    if ended not in WHOLE and ended != "client_gone":
        return []
    if kind == "vllm_middleware":
        return [_middleware(call, is_whole=ended in WHOLE)]
    # An engine that nobody thought of tells of what it computed, whoever has read it.
    return [_total(call, "abort" if ended == "client_gone" else _finish(call))] if call.prefilled_s else []


def _finish(call: Call) -> Finish:
    # A called tool is an end as any other.
    return "length" if call.finish_reason == "length" else "stop"


def _total(call: Call, finish: Finish) -> Told:
    """All answers of a call together, its prompts counted once."""
    now_unix = time.time()
    received_unix = call.record.started_unix
    first_unix = now_unix
    if call.prefilled_s is not None:
        first_unix = max(received_unix, now_unix - (time.perf_counter() - call.prefilled_s))
    return Told(
        wire_id=call.wire_id,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.generated_tokens,
        finish=finish,
        cached_tokens=call.cached_tokens,
        reasoning_tokens=call.record.reasoning_tokens,
        received_unix=received_unix,
        first_token_unix=first_unix,
        finished_unix=max(now_unix, received_unix),
        stream=call.request.stream,
        path=call.record.path,
        header_id=call.header_id,
        cap_tokens=call.request.cap_tokens,
    )


def _middleware(call: Call, *, is_whole: bool) -> Told:
    total = _total(call, _finish(call) if is_whole else "abort")
    hides_cached = call.request.stream and call.request.endpoint in ("chat", "messages")
    return msgspec.structs.replace(total, shows_cached=not hides_cached)


def _sequences(call: Call, finish: Finish) -> list[Told]:
    """One record an answer: of each prompt as many as there are choices."""
    total = _total(call, finish)
    counts = (call.first_prompt_tokens, *call.request.prompt.counts[1:])
    records = []
    cached_left = call.cached_tokens
    for part, prompt_tokens in enumerate(counts):
        cached = min(cached_left, prompt_tokens)
        cached_left -= cached
        one = msgspec.structs.replace(
            total,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached,
            completion_tokens=call.steps,
            reasoning_tokens=min(call.steps, call.reasoning_tokens),
            part=part,
        )
        records += [one] * call.request.n
    return records


def _spans(call: Call) -> list[Told]:
    records = _sequences(call, _finish(call))
    if call.request.endpoint != "completions":
        return records
    return [msgspec.structs.replace(one, wire_id=f"{one.wire_id}-{one.part}") for one in records]


def _sglang(dialect: Dialect, call: Call) -> list[Told]:
    records = _sequences(call, _finish(call))
    if call.request.endpoint == "embeddings":
        records = [msgspec.structs.replace(one, completion_tokens=None, finish="length") for one in records]
    ids = call.engine_ids
    if call.request.n > 1:
        # The prompt runs once more than there are choices; and whatever ids the call had, these have others.
        warm_up = msgspec.structs.replace(
            records[0], completion_tokens=0, reasoning_tokens=0, finish="length"
        )
        more = tuple(dialect.random_hex(32) for _ in records)
        records, ids = [warm_up, *records], (more[0], call.wire_id, *more[1:])
    return [msgspec.structs.replace(one, wire_id=wire_id) for one, wire_id in zip(records, ids, strict=True)]
