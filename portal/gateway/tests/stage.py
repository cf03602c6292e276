"""What the gateway's tests play on: a tenant with a model on backends, calls, and what was stored of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx2 as httpx
from django.db import transaction

from devstack.engines.testing import RunningEngine, sim
from models_catalog.models import Deployment, ServingBackend
from portal.kit.ids import PREFIXES, parse_public_id
from portal.kit.sse import EventSplitter, event_data
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_tenant,
    unique_name,
)
from tests.gateway_process import RunningGateway, client
from tests.waiting import wait_for

# Prices that leave a rounding in every line, so that a wrong rounding shows.
AWKWARD_PRICES: Mapping[str, int] = {
    "input": 333_333_333,
    "cached_input": 33_333_337,
    "output": 1_234_567_891,
    "reasoning": 2_345_678_917,
}
SETTLE_TIMEOUT_S = 10.0


def cost_nanos(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> int:
    """What a usage costs at AWKWARD_PRICES: each line rounds half up, once."""
    lines = {
        "input": prompt - cached,
        "cached_input": cached,
        "output": completion - reasoning,
        "reasoning": reasoning,
    }
    return sum((units * AWKWARD_PRICES[name] + 500_000) // 1_000_000 for name, units in lines.items())


@dataclass(slots=True)
class Answer:
    """A client's view of one call. `events` are whole events with their blank lines, `chunks` their JSON."""

    status: int
    headers: httpx.Headers
    body: bytes
    events: list[bytes] = field(default_factory=list)

    @property
    def request_id(self) -> UUID:
        return parse_public_id(PREFIXES["request"], self.headers["x-request-id"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def chunks(self) -> list[dict[str, Any]]:
        data = [event_data(event) for event in self.events]
        return [json.loads(piece) for piece in data if piece is not None and piece != b"[DONE]"]

    @property
    def text(self) -> str:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", [])]
        names = ("reasoning_content", "reasoning", "content")
        return "".join(delta.get(name) or "" for delta in deltas for name in names)

    @property
    def is_done(self) -> bool:
        return bool(self.events) and event_data(self.events[-1]) == b"[DONE]"


@dataclass(slots=True)
class Stored:
    """What was stored of one call, once its hold is resolved. `usage` is None when nothing was charged."""

    hold: dict[str, Any]
    attempts: list[dict[str, Any]]
    usage: dict[str, Any] | None

    @property
    def outcomes(self) -> list[str]:
        return [attempt["outcome"] for attempt in self.attempts]


def stored(request_id: UUID) -> Stored:
    """Waits until the call is settled."""

    def resolved() -> dict[str, Any] | None:
        holds = rows_of("quotas_hold", request_id=request_id)
        return holds[0] if holds and holds[0]["state"] != "PENDING" else None

    hold = wait_for(resolved, SETTLE_TIMEOUT_S, "the call's settlement")
    assert hold is not None
    attempts = sorted(rows_of("quotas_attempt", request_id=request_id), key=lambda row: row["ordinal"])
    usages = rows_of("quotas_usagerecord", request_id=request_id)
    assert len(usages) <= 1
    return Stored(hold, attempts, usages[0] if usages else None)


def requests_of(tenant: TenantFixture) -> list[UUID]:
    """Every admitted call of a tenant, oldest first."""
    return sorted(row["id"] for row in rows_of("quotas_inferencerequest", tenant_id=tenant.id))


def held_nanos(tenant: TenantFixture) -> int:
    (wallet,) = rows_of("quotas_wallet", tenant_id=tenant.id)
    pending: int = wallet["pending_nanos"]
    return pending


@dataclass(slots=True)
class Stage:
    """A tenant that may call one model through a gateway."""

    gateway: RunningGateway
    tenant: TenantFixture
    model: ModelFixture

    def body(self, text: str, **fields: Any) -> dict[str, Any]:
        return {"model": self.model.slug, "messages": [{"role": "user", "content": text}], **fields}

    def post(self, body: Any, *, token: str | None = None) -> Answer:
        """A plain call, with a JSON value or raw bytes as its body."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with client(self.gateway, token or self.tenant.key.token) as http:
            answer = http.post(
                "/chat/completions", content=content, headers={"Content-Type": "application/json"}
            )
        return Answer(answer.status_code, answer.headers, answer.content)

    def ask(self, text: str = "hello", **fields: Any) -> Answer:
        return self.post(self.body(text, **fields))

    def play(self, **directive: int | float | str) -> Answer:
        """A plain call that makes the simulated engine do something."""
        return self.ask(sim(**directive))

    def stream(self, text: str, **fields: Any) -> Answer:
        """A streamed call, read to its end."""
        splitter = EventSplitter(64 * 2**20)
        with (
            client(self.gateway, self.tenant.key.token) as http,
            http.stream("POST", "/chat/completions", json=self.body(text, stream=True, **fields)) as answer,
        ):
            body = b"".join(answer.iter_raw())
        events = splitter.feed(body) if answer.status_code == 200 else []
        assert not splitter.tail()
        return Answer(answer.status_code, answer.headers, body, events)

    def play_stream(self, *, include_usage: bool = False, **directive: int | float | str) -> Answer:
        options = {"stream_options": {"include_usage": True}} if include_usage else {}
        return self.stream(sim(**directive), **options)


def make_stage(
    gateway: RunningGateway,
    *backends: tuple[str, str],
    granted: str = "1.00",
    upstream_model: str = "sim-model",
    **model_fields: Any,
) -> Stage:
    """A tenant with a model on backends, each given as engine and base URL, in the order they are tried."""
    tenant = make_tenant(granted=granted)
    stem = unique_name("backend")
    # All at once, so that no gateway sees the model with a part of its backends.
    with role_scope("operator"), transaction.atomic(using="operator"):
        backend_ids = [make_backend(engine=engine, base_url=url) for engine, url in backends]
        for number, backend_id in enumerate(backend_ids):
            # Of equally good routes the one whose backend's code comes first is tried first.
            ServingBackend.objects.filter(id=backend_id).update(code=f"{stem}-{number}")
        model = make_model(
            backend_id=backend_ids[0], upstream_model=upstream_model, prices=AWKWARD_PRICES, **model_fields
        )
        for backend_id in backend_ids[1:]:
            Deployment.objects.create(model_id=model.id, backend_id=backend_id, upstream_model=upstream_model)
    enable(tenant, model)
    return Stage(gateway, tenant, model)


def on(engine: RunningEngine, flavour: str) -> tuple[str, str]:
    return flavour, engine.url
