"""A backend as nobody could run one in a test: calls, counters and samples at made-up times.

Rows are written inside the data plane's transaction, which the test rolls back: no other test meets them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections, transaction

from portal.kit.ids import partition_bound, uuid7
from quotas.models import ControlWindow, CounterSample, SuspenseItem
from quotas.reconciliation.windows.operations import WindowsReport, reconcile_windows
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture

RANDOM_BITS = (1 << 74) - 1
OPEN = "OPEN"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the engine did it, in seconds of the scene. left_s: when its client went (the gateway's
    end); None when it came to its end. Tokens are the engine's own."""

    begin_s: float
    end_s: float
    prompt: int
    completion: int
    left_s: float | None = None
    delivered: int = 0
    is_ours: bool = True


@dataclass(slots=True)
class Scene:
    """A stretch of one backend's life that began at `start`."""

    tenant: TenantFixture
    model: ModelFixture
    start: datetime
    calls: list[Call] = field(default_factory=list)
    counts_at_end: bool = False
    lag_s: float = 0.0
    cap: int = 400
    incarnation: int = 1
    life_begin_s: float = 0.0

    def at(self, seconds: float) -> datetime:
        return self.start + timedelta(seconds=seconds)

    def counted(self, at_s: float) -> tuple[int, int, int]:
        """Prompt and completion tokens counted in this life, and how many calls run."""
        prompt = completion = running = 0
        for call in self.calls:
            if call.begin_s < self.life_begin_s or call.begin_s > at_s:
                continue
            running += at_s < call.end_s
            if self.counts_at_end:
                if at_s >= call.end_s + self.lag_s:
                    prompt, completion = prompt + call.prompt, completion + call.completion
                continue
            prompt += call.prompt
            part = min(1.0, (at_s - call.begin_s) / max(call.end_s - call.begin_s, 1e-9))
            completion += int(call.completion * part)
        return prompt, completion, running

    def sample(self, at_s: float, *, says_running: bool = True) -> None:
        prompt, completion, running = self.counted(at_s + 0.02)
        with role_scope("dataplane"):
            CounterSample.objects.create(
                backend_id=self.model.backend_id,
                incarnation=self.incarnation,
                asked_at=self.at(at_s),
                sampled_at=self.at(at_s + 0.05),
                prompt_tokens=prompt,
                completion_tokens=completion,
                running=running if says_running else None,
            )

    def write_calls(self, *, until_s: float) -> None:
        """What the gateway had written of the calls by then."""
        requests, attempts = [], []
        for call in self.calls:
            if not call.is_ours or call.begin_s > until_s:
                continue
            request_id, attempt_id = (id_at(self.at(call.begin_s)) for _ in range(2))
            over_s = call.end_s if call.left_s is None else call.left_s
            is_over = over_s <= until_s
            outcome = ("COMPLETED" if call.left_s is None else "CLIENT_GONE") if is_over else None
            counts = (call.prompt, call.completion if call.left_s is None else call.delivered)
            requests.append(
                [
                    request_id,
                    self.tenant.id,
                    self.tenant.key.id,
                    self.model.id,
                    self.model.price_version_id,
                    max(call.prompt, 1) * 2,
                    self.cap,
                    self.at(call.begin_s),
                ]
            )
            attempts.append(
                [
                    attempt_id,
                    request_id,
                    self.tenant.id,
                    self.model.deployment_id,
                    self.at(call.begin_s),
                    self.at(over_s) if is_over else None,
                    outcome,
                    *(counts if is_over else (None, None)),
                ]
            )
        with connections["dataplane"].cursor() as cursor:
            cursor.executemany(
                "INSERT INTO quotas_inferencerequest (id, tenant_id, api_key_id, model_id, price_version_id,"
                " service_tier, endpoint, is_stream, choices, prompt_bound_tokens, output_cap_tokens,"
                " payload_sha256, admitted_at) VALUES (%s, %s, %s, %s, %s, 'standard', 'chat.completions',"
                " false, 1, %s, %s, '', %s)",
                requests,
            )
            cursor.executemany(
                "INSERT INTO quotas_attempt (id, request_id, tenant_id, deployment_id, ordinal, choice_index,"
                " started_at, ended_at, outcome, wire_id, prompt_tokens, completion_tokens)"
                " VALUES (%s, %s, %s, %s, 0, 0, %s, %s, %s, '', %s, %s)",
                attempts,
            )

    def windows(self) -> list[ControlWindow]:
        with role_scope("dataplane"):
            return list(ControlWindow.objects.filter(backend_id=self.model.backend_id).order_by("to_at"))

    def items(self) -> list[SuspenseItem]:
        with role_scope("dataplane"):
            return list(SuspenseItem.objects.filter(backend_id=self.model.backend_id).order_by("event_at"))

    def reconcile(self, at_s: float) -> WindowsReport:
        return reconcile_windows(now=self.at(at_s), backend_id=self.model.backend_id)


def id_at(moment: datetime) -> UUID:
    """An id as it would have been made then."""
    bits = uuid7().int & ((1 << 76) - 1) | 0x7 << 76
    return UUID(int=partition_bound(moment).int | bits)


@contextmanager
def rolled_back() -> Iterator[None]:
    """What the data plane writes inside is gone afterwards."""
    with transaction.atomic(using="dataplane"):
        yield
        transaction.set_rollback(True, using="dataplane")


def busy_calls(
    dice: random.Random, *, slots: int, until_s: float, leaving: float, cap: int
) -> Sequence[Call]:
    """Calls back to back in so many slots; `leaving` is the share whose client leaves before the end."""
    calls = []
    for _ in range(slots):
        at_s = dice.uniform(0, 5)
        while at_s < until_s:
            length_s = dice.choice([dice.uniform(0.1, 3), dice.uniform(2, 40)])
            prompt, completion = dice.randint(1, 300), dice.randint(1, cap)
            end_s = at_s + length_s
            if dice.random() < leaving:
                left_s = at_s + length_s * dice.random()
                # The engine goes on for a while.
                end_s = min(end_s, left_s + dice.uniform(0, 6))
                delivered = int(completion * (left_s - at_s) / max(length_s, 1e-9))
                completion = max(delivered, int(completion * (end_s - at_s) / max(length_s, 1e-9)))
                calls.append(Call(at_s, end_s, prompt, completion, left_s, delivered))
            else:
                calls.append(Call(at_s, end_s, prompt, completion))
            at_s = end_s + dice.choice([0.0, dice.uniform(0, 2)])
    return calls
