"""Mixed calls through a real gateway: whole answers and streams, choices, cached prompts, errors, and clients
that leave in the middle."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2 as httpx
from django.conf import settings

from devstack.engines.testing import sim
from portal.kit.clock import utc_now
from quotas.reconciliation.operations import sample_counters
from quotas.reconciliation.queries import witness_report
from quotas.reconciliation.witness import BackendWitness, Comparison
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import ModelFixture, TenantFixture
from tests.gateway_process import RunningGateway, client
from tests.waiting import wait_for

AT_A_TIME = 12


@dataclass(frozen=True, slots=True)
class Script:
    """One call: its body without the model, and after how many events the client leaves a stream (None: at
    the end), or after how many seconds it gives a whole answer up."""

    kind: str
    body: dict[str, Any]
    leaves_after_events: int | None = None
    leaves_after_s: float | None = None


def directed(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def simulated_calls(count: int, *, seed: int, is_peaceful: bool = False) -> list[Script]:
    """Calls for an engine simulator; peaceful ones all come to their end with a usage."""
    dice = random.Random(seed)

    def tokens() -> int:
        return dice.randint(1, 60)

    def prompt() -> dict[str, int]:
        size = dice.randint(1, 400)
        return {"prompt": size, "cached": dice.choice([0, 0, size // 2, size])}

    def answers() -> str:
        return sim(tokens=tokens(), rate=0, **prompt())

    makers: list[tuple[int, Callable[[], Script]]] = [
        (30, lambda: Script("plain", directed(answers()))),
        (30, lambda: Script("stream", directed(answers(), stream=True))),
        (8, lambda: Script("two choices", directed(answers(), n=2))),
        (8, lambda: Script("stream of two", directed(answers(), n=2, stream=True))),
        (6, lambda: Script("capped", directed(answers(), max_tokens=5))),
    ]
    if not is_peaceful:
        makers += [
            (
                20,
                lambda: Script(
                    "client leaves",
                    directed(sim(tokens=400, rate=400, **prompt()), stream=True),
                    leaves_after_events=dice.randint(1, 30),
                ),
            ),
            (
                4,
                lambda: Script(
                    "client gives up", directed(sim(tokens=300, rate=200, **prompt())), leaves_after_s=0.3
                ),
            ),
            (4, lambda: Script("refused by us", directed(answers(), n_predict=7))),
            (3, lambda: Script("refused", directed(sim(fault="status:400")))),
            (3, lambda: Script("unavailable", directed(sim(fault="status:503"), stream=True))),
            (3, lambda: Script("reset", directed(sim(fault="reset_before")))),
            (
                3,
                lambda: Script("broken stream", directed(sim(tokens=30, fault="reset_after:7"), stream=True)),
            ),
            (
                2,
                lambda: Script(
                    "error event", directed(sim(tokens=30, fault="error_event_after:4"), stream=True)
                ),
            ),
            (3, lambda: Script("null usage", directed(sim(tokens=9, fault="usage_null"), stream=True))),
            (3, lambda: Script("no usage", directed(sim(tokens=9, fault="no_usage")))),
        ]
    weights = [weight for weight, _ in makers]
    return [maker() for _, maker in dice.choices(makers, weights, k=count)]


def play(
    gateway: RunningGateway, tenant: TenantFixture, model: ModelFixture, scripts: Sequence[Script]
) -> Counter[str]:
    """Make the calls, some at a time; how many of each kind there were."""

    def one(script: Script) -> str:
        body = {"model": model.slug, **script.body}
        with client(gateway, tenant.key.token) as http:
            if script.leaves_after_s is not None:
                try:
                    http.post("/chat/completions", json=body, timeout=script.leaves_after_s)
                except httpx.TimeoutException:
                    return script.kind
            elif script.leaves_after_events is None:
                http.post("/chat/completions", json=body)
            else:
                with http.stream("POST", "/chat/completions", json=body) as answer:
                    events = 0
                    for line in answer.iter_lines():
                        events += line.startswith("data: ")
                        if events >= script.leaves_after_events:
                            break
        return script.kind

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return Counter(pool.map(one, scripts))


def wait_settled(tenant: TenantFixture, *, timeout_s: float = 30.0) -> None:
    """Returns once every attempt of the tenant has ended."""

    def is_settled() -> bool:
        with connected("operator") as connection:
            row = connection.execute(
                "SELECT count(*) FROM quotas_attempt WHERE tenant_id = %s AND ended_at IS NULL", (tenant.id,)
            ).fetchone()
        return row is not None and row[0] == 0

    wait_for(is_settled, timeout_s, "the calls' settlement")


def take_sample() -> None:
    sample_counters(secrets=settings.SECRET_STORE)


def last_sample_at(backend_id: UUID) -> datetime:
    """When the backend was read last: a window that begins then begins with that sample."""
    read_at = witness_of(backend_id).read_at
    assert read_at is not None
    return read_at


def witness_of(backend_id: UUID, *, since: datetime | None = None) -> BackendWitness:
    """The comparison from the last sample before `since`, or of the last hour."""
    now = utc_now()
    with role_scope("operator"):
        report = witness_report(now=now, window=now - since if since else timedelta(hours=1))
    (found,) = [one for one in report if one.backend_id == backend_id]
    return found


def attempts_of(tenant: TenantFixture) -> list[dict[str, Any]]:
    return rows_of("quotas_attempt", tenant_id=tenant.id)


def print_table(title: str, backend: BackendWitness, kinds: Counter[str]) -> None:
    """The table that the operators' page shows, as text."""
    witness = backend.newest
    assert witness is not None
    print(f"\n{title}: {kinds.total()} calls {dict(sorted(kinds.items()))}")
    print(f"  incarnation {witness.incarnation}, {witness.attempts} attempts, in flight {witness.in_flight}")
    print(f"  {'':<12}{'counter':>10}{'metered':>10}{'difference':>12}{'explained':>11}{'unexplained':>13}")
    for name, side in (("prompt", witness.prompt), ("completion", witness.completion)):
        print(f"  {name:<12}{_numbers(side)}")
    for cause in witness.causes:
        print(
            f"  {cause.kind}: {cause.attempts} attempts, prompt {cause.prompt.low:+}…{cause.prompt.high:+}, "
            f"completion {cause.completion.low:+}…{cause.completion.high:+}"
        )
    print(f"  → {backend.state}")


def _numbers(side: Comparison) -> str:
    return (
        f"{side.counted_tokens:>10}{side.metered_tokens:>10}{side.difference_tokens:>+12}"
        f"{side.explained_tokens:>+11}{side.unexplained_tokens:>+13}"
    )
