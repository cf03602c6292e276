"""What the tests of dialects share: a model, its requests, and what engines were recorded to answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from models_catalog.engines import ADAPTERS, UsageReport
from portal.inference.delivery import Delivery
from portal.inference.dialects import Dialect, ModelRequest, decode_body
from portal.inference.errors import CallError
from portal.inference.public_name import PublicName
from portal.inference.snapshot import ModelEntry
from portal.inference.stream_events import EventRun

SLUG = "acme/model"
ENTRY = ModelEntry(
    id=uuid4(),
    slug=SLUG,
    context_tokens=4096,
    max_output_tokens=1000,
    default_output_cap_tokens=200,
    template_overhead_tokens=32,
    image_allowance_tokens=None,
    capabilities=frozenset(),
    extra_fields=frozenset({"chat_template_kwargs", "n_predict"}),
    routes=(),
)


def read(
    dialect: Dialect, body: dict[str, Any], *, engine: str = "vllm", entry: ModelEntry = ENTRY
) -> ModelRequest:
    raw = json.dumps({"model": SLUG, **body}).encode()
    return dialect.read_request(decode_body(raw), raw=raw, entry=entry, engines=[ADAPTERS[engine]])


def refused(
    dialect: Dialect, body: dict[str, Any], *, engine: str = "vllm", entry: ModelEntry = ENTRY
) -> CallError:
    with pytest.raises(CallError) as caught:
        read(dialect, body, engine=engine, entry=entry)
    assert caught.value.status == 400
    return caught.value


def sent(request: ModelRequest, engine: str, *, index: int = 0) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The path, headers and body of one choice's call to a backend."""
    upstream = request.upstream_call(
        engine=ADAPTERS[engine],
        attempt_id="att_x",
        upstream_model="upstream",
        output_cap_tokens=request.output_cap_tokens,
        index=index,
    )
    return upstream.path, dict(upstream.headers), json.loads(upstream.body)


def captured(endpoint: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By engine and name: the `answer` of a whole one, the `events` of a stream."""
    path = Path(__file__).parent / "captured" / f"{endpoint}.json"
    return {
        (engine, name): capture
        for engine, captures in json.loads(path.read_text()).items()
        for name, capture in captures.items()
    }


class Reader:
    """Reads what an engine answers as a choice of a call does."""

    def __init__(self, dialect: Dialect, request: ModelRequest, *, engine: str, upstream_model: str) -> None:
        self.delivery = Delivery(request, 0)
        self._dialect = dialect
        self._engine = ADAPTERS[engine]
        self._name = PublicName(SLUG, upstream_model=upstream_model)
        self.outgoing: list[bytes] = []

    def stream(self, events: Sequence[str | bytes], *, at_a_time: int = 1) -> EventRun:
        """The last run of the events, so many of which arrive together."""
        raw = [event.encode() if isinstance(event, str) else event for event in events]
        run = EventRun()
        for start in range(0, len(raw), at_a_time):
            run = self._dialect.read_run(
                raw[start : start + at_a_time], engine=self._engine, include_usage=True, name=self._name
            )
            self.outgoing += run.outgoing
            self.delivery.note_run(run, self._engine)
            if run.is_done or run.has_failed:
                self.delivery.is_complete = run.is_done
                break
        return run

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What the client is shown of a whole answer."""
        plain = self._dialect.read_plain(json.dumps(answer).encode())
        self.delivery.note_plain(plain, self._engine)
        shown: dict[str, Any] = json.loads(self._name.in_answer(plain.body))
        return shown

    @property
    def report(self) -> UsageReport | None:
        return self.delivery.report()
