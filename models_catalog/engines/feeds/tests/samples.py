"""Records of every line format, made of the same values, and what real engines were recorded to write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from models_catalog.engines.feeds import FeedFormat, FeedOptions, Finish
from portal.kit.ids import PREFIXES, public_id

CAPTURES: dict[str, dict[str, Any]] = {
    engine: json.loads((Path(__file__).parent / "captures" / f"{engine}.json").read_text())
    for engine in ("sglang", "vllm")
}

ATTEMPT_ID = UUID("01938a5f-6b2c-7abc-9def-0123456789ab")
OURS = public_id(PREFIXES["attempt"], ATTEMPT_ID)
# Stands where engines write prompts.
SECRET = "the words of a tenant"

COLUMNS = (
    "wire_id",
    "part",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "finish",
    "finished_at",
    "event_id",
)
NDJSON_OPTIONS = FeedOptions(
    columns={
        "wire_id": "request.id",
        "part": "request.part",
        "prompt_tokens": "usage.in",
        "cached_tokens": "usage.hit",
        "completion_tokens": "usage.out",
        "reasoning_tokens": "usage.think",
        "finish": "why",
        "finished_at": "at",
        "event_id": "n",
    },
    finishes={"natural": Finish.STOP},
)
CSV_OPTIONS = FeedOptions(
    columns={name: name for name in COLUMNS},
    header=("model", *COLUMNS),
    finishes={"natural": Finish.STOP},
)
OPTIONS: Mapping[FeedFormat, FeedOptions] = {
    FeedFormat.NDJSON: NDJSON_OPTIONS,
    FeedFormat.CSV: CSV_OPTIONS,
}

VALUES: dict[str, Any] = {
    "wire_id": OURS,
    "prompt_tokens": 18,
    "cached_tokens": 17,
    "completion_tokens": 16,
    "reasoning_tokens": 3,
    "finish": "length",
    # 2026-11-24T00:01:22.500Z
    "finished_unix": 1795478482.5,
    "finished_at": "2026-11-24T00:01:22.500+00:00",
}


def _told(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _meta_info(values: Mapping[str, Any]) -> dict[str, Any]:
    meta: dict[str, Any] = _told(
        values, "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"
    )
    if "wire_id" in values:
        meta["id"] = values["wire_id"]
    if "finished_unix" in values:
        meta["request_finished_ts"] = values["finished_unix"]
    return meta | {"finish_reason": {"type": values.get("finish")}, "e2e_latency": 0.08}


def sglang_log(values: Mapping[str, Any]) -> bytes:
    event = {
        "timestamp": "2026-11-24T00:01:22.500000",
        "event": "request.finished",
        "rid": values.get("wire_id"),
        "obj": {"text": SECRET, "input_ids": [1, 2, 3]},
        "out": {"text": SECRET, "meta_info": _meta_info(values)},
    }
    return b"[2026-11-24 00:01:22] " + json.dumps(event).encode()


def sglang_export(values: Mapping[str, Any]) -> bytes:
    return json.dumps({"request_parameters": json.dumps({"text": SECRET}), **_meta_info(values)}).encode()


def vllm_middleware(values: Mapping[str, Any]) -> bytes:
    line = {
        "v": 1,
        "finished_unix": values.get("finished_unix"),
        "path": "/v1/chat/completions",
        "status": 200,
        "whole": True,
        "request_id": values.get("wire_id"),
        "x_request_id": None,
        "usage": _told(values, "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"),
    }
    return json.dumps(line).encode()


def cloudevent(values: Mapping[str, Any]) -> bytes:
    event = {
        "specversion": "1.0",
        "type": "sluice.usage.v1",
        "source": "/centre/node-1",
        "id": "17",
        "time": values.get("finished_at"),
        "data": {name: value for name, value in values.items() if not name.startswith("finished")},
    }
    return json.dumps(event).encode()


def ndjson(values: Mapping[str, Any]) -> bytes:
    line = {
        "request": {"id": values.get("wire_id"), "text": SECRET},
        "usage": {
            "in": values.get("prompt_tokens"),
            "hit": values.get("cached_tokens"),
            "out": values.get("completion_tokens"),
            "think": values.get("reasoning_tokens"),
        },
        "why": values.get("finish"),
        "at": values.get("finished_at"),
        "n": "17",
    }
    return json.dumps(line).encode()


def csv_line(values: Mapping[str, Any]) -> bytes:
    cells = ["" if values.get(name) is None else str(values[name]) for name in COLUMNS[:-1]]
    return ",".join([f'"{SECRET}, and more"', *cells, "17"]).encode(errors="surrogatepass")


MAKERS: Mapping[FeedFormat, Callable[[Mapping[str, Any]], bytes]] = {
    FeedFormat.SGLANG_LOG: sglang_log,
    FeedFormat.SGLANG_EXPORT: sglang_export,
    FeedFormat.VLLM_MIDDLEWARE: vllm_middleware,
    FeedFormat.CLOUDEVENTS: cloudevent,
    FeedFormat.NDJSON: ndjson,
    FeedFormat.CSV: csv_line,
}


def options_of(format: FeedFormat) -> FeedOptions:
    return OPTIONS.get(format, FeedOptions())
