"""A gateway is killed in the middle of streams, or stopped for longer than its leases."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from devstack.engines.testing import sim
from quotas import operations
from tests.celery_process import running_celery
from tests.faults.conftest import SetStage
from tests.faults.evidence import (
    assert_audit_holds,
    database_clock,
    holds_of,
    is_nothing_held,
    posted_nanos,
    price_nanos,
    usage_of,
    wait_nothing_held,
)
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, streaming
from tests.gateway_process import client, running_gateway, start_gateway
from tests.waiting import wait_for

LEASE_S = 4
CHECKPOINT_S = 1
SWEEP_S = 2
TOKENS_PER_S = 25
TUNING = {
    "SLUICE_LEASE_S": str(LEASE_S),
    "SLUICE_CHECKPOINT_S": str(CHECKPOINT_S),
    "SLUICE_SWEEP_S": str(SWEEP_S),
    "SLUICE_DRAIN_S": "1",
}


def are_ahead(stage: Stage, clients: list[StreamClient], *, by: int) -> bool:
    """Whether every stream has a durable checkpoint and has got so many tokens more since."""
    holds = holds_of(stage.tenant_id)
    durable = {stream.call_id: holds[stream.call_id]["checkpoint_completion_tokens"] for stream in clients}
    return all(0 < durable[stream.call_id] <= stream.words - by for stream in clients)


def is_swept(tenant_id: UUID) -> bool:
    """Sweep once; whether nothing of the organization is held any more."""
    operations.sweep_expired_holds(lease_s=LEASE_S)
    return is_nothing_held(tenant_id)


def kill_in_the_middle(stages: list[Stage], folder: Path, *, count: int) -> list[list[StreamClient]]:
    """So many streams of each tenant, killed with their gateway long after the last checkpoint."""
    gateway = start_gateway(folder, **TUNING)
    with ExitStack() as running:
        clients = [
            running.enter_context(
                streaming(
                    gateway.api_base, stage.token, stage.slug, count=count, tokens=4_000, rate=TOKENS_PER_S
                )
            )
            for stage in stages
        ]
        wait_for(
            lambda: all(
                are_ahead(stage, streams, by=TOKENS_PER_S * CHECKPOINT_S // 2)
                for stage, streams in zip(stages, clients, strict=True)
            ),
            20,
            "half a second's tokens beyond the last checkpoint of every stream",
        )
        killed_at = database_clock()
        gateway.kill()
    holds = [hold for stage in stages for hold in holds_of(stage.tenant_id).values()]
    ages_s = [(killed_at - hold["checkpoint_at"]).total_seconds() for hold in holds]
    print(
        f"{len(holds)} streams killed with checkpoints {min(ages_s):.3f} to {max(ages_s):.3f} s old; "
        f"at most {CHECKPOINT_S} s are promised"
    )
    assert len(holds) == count * len(stages)
    assert max(ages_s) <= CHECKPOINT_S
    assert {stream.ending for streams in clients for stream in streams} == {"broken"}
    return clients


def assert_charged_to_the_checkpoint(
    hold: dict[str, Any], records: list[dict[str, Any]], stream: StreamClient
) -> None:
    """One estimated record of the sweeper, which equals the checkpoint and is within what was received."""
    (record,) = records
    assert (hold["state"], hold["resolved_by"]) == ("EXPIRED", "SWEEPER")
    assert (record["source"], record["basis"], record["provenance"]) == ("SWEEPER", "CHECKPOINT", "ESTIMATED")
    assert record["prompt_tokens"] == hold["checkpoint_prompt_tokens"]
    assert record["completion_tokens"] == hold["checkpoint_completion_tokens"]
    assert 0 < record["completion_tokens"] <= stream.words
    charge = price_nanos(hold["checkpoint_prompt_tokens"], hold["checkpoint_completion_tokens"])
    assert record["charged_nanos"] == charge
    assert posted_nanos(record["request_id"]) == [charge]


def assert_all_charged(stage: Stage, streams: list[StreamClient]) -> None:
    holds, usage = holds_of(stage.tenant_id), usage_of(stage.tenant_id)
    for stream in streams:
        assert_charged_to_the_checkpoint(holds[stream.call_id], usage[stream.call_id], stream)
    print(f"received {[stream.words for stream in streams]}")
    print(f"charged  {[usage[stream.call_id][0]['completion_tokens'] for stream in streams]}")


def test_killed_in_the_middle_of_twenty_streams(set_stage: SetStage, tmp_path: Path) -> None:
    stage = set_stage("llamacpp")
    with running_celery(tmp_path, with_beat=True, **TUNING):
        (streams,) = kill_in_the_middle([stage], tmp_path, count=20)
        killed_s = time.monotonic()
        with running_gateway(tmp_path, **TUNING) as restarted, client(restarted, stage.token) as http:
            assert http.get("/models").status_code == 200
            # The lease runs from the last checkpoint, so it is over at most one lease after the kill.
            budget_s = LEASE_S + 2 * SWEEP_S
            wait_nothing_held(stage.tenant_id, timeout_s=budget_s - (time.monotonic() - killed_s))
            print(f"every hold was resolved {time.monotonic() - killed_s:.1f} s after the kill")
    assert_all_charged(stage, streams)
    assert_audit_holds()


def test_killed_on_other_engines(set_stage: SetStage, tmp_path: Path) -> None:
    """Also where the engine reports running counts elsewhere, or none at all and the events are counted."""
    stages = [set_stage("vllm"), set_stage("sglang"), set_stage("generic")]
    clients = kill_in_the_middle(stages, tmp_path, count=4)
    for stage, streams in zip(stages, clients, strict=True):
        wait_for(partial(is_swept, stage.tenant_id), LEASE_S + 2 * SWEEP_S, "sweeps")
        assert_all_charged(stage, streams)
    assert_audit_holds()


def wait_stuck(tenant_id: UUID) -> None:
    """Return when a checkpoint has been renewed without a token more: the client takes nothing any more."""
    seen: dict[datetime, int] = {}

    def is_stuck() -> bool:
        for hold in holds_of(tenant_id).values():
            if hold["checkpoint_at"] is None:
                return False
            seen[hold["checkpoint_at"]] = hold["checkpoint_completion_tokens"]
        return len(seen) > len(set(seen.values()))

    wait_for(is_stuck, 20, "a stream that is stuck")


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(2**20):
            answer += piece
    return answer


def test_a_client_that_reads_slowly_is_not_charged_for_more(set_stage: SetStage, tmp_path: Path) -> None:
    """What waits in a buffer of the gateway dies with it, so no checkpoint may have counted it."""
    stage = set_stage("llamacpp", context=100_000)
    gateway = start_gateway(tmp_path, **TUNING)
    body = json.dumps(
        chat_body(stage.slug, "count " + sim(tokens=90_000, rate=0), max_tokens=90_000)
    ).encode()
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.settimeout(20)
        connection.connect((host, int(port)))
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {stage.token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_stuck(stage.tenant_id)
        gateway.kill()
        received = read_all(connection).count(b'"content":"')
    (hold,) = holds_of(stage.tenant_id).values()
    print(f"received {received} tokens, checkpoint {hold['checkpoint_completion_tokens']}")
    assert 0 < hold["checkpoint_completion_tokens"] <= received
    wait_for(lambda: is_swept(stage.tenant_id), LEASE_S + 2 * SWEEP_S, "sweeps")


def test_a_late_settlement_posts_the_difference(set_stage: SetStage, tmp_path: Path) -> None:
    """A gateway that was stopped for longer than its lease finds its calls settled, cuts them, and
    corrects the charge to what it has delivered."""
    stage = set_stage("llamacpp")
    with (
        running_gateway(tmp_path, **TUNING) as gateway,
        streaming(
            gateway.api_base, stage.token, stage.slug, count=3, tokens=4_000, rate=TOKENS_PER_S
        ) as clients,
    ):
        wait_for(lambda: are_ahead(stage, clients, by=5), 20, "tokens beyond the last checkpoint")
        os.kill(gateway.pid, signal.SIGSTOP)
        words_before = {stream.call_id: stream.words for stream in clients}
        try:
            wait_for(lambda: is_swept(stage.tenant_id), LEASE_S + 2 * SWEEP_S, "sweeps")
            swept = usage_of(stage.tenant_id)
        finally:
            os.kill(gateway.pid, signal.SIGCONT)
        wait_for(
            lambda: all(len(records) == 2 for records in usage_of(stage.tenant_id).values()),
            10,
            "late settlements",
        )
    assert {stream.ending for stream in clients} == {"error_event"}
    assert len(swept) == 3
    for stream in clients:
        first, second = usage_of(stage.tenant_id)[stream.call_id]
        assert (first["source"], second["source"]) == ("SWEEPER", "GATEWAY")
        assert (first["revision"], second["revision"]) == (1, 2)
        assert (second["provenance"], second["completion_tokens"]) == ("MEASURED", stream.words)
        # What piled up at the engine meanwhile, four seconds of it, was not delivered any more.
        assert stream.words <= words_before[stream.call_id] + TOKENS_PER_S
        difference = second["charged_nanos"] - first["charged_nanos"]
        assert difference > 0
        assert posted_nanos(stream.call_id) == [first["charged_nanos"], difference]
        print(
            f"swept {first['completion_tokens']} tokens, delivered {stream.words}: {difference} more posted"
        )
    assert_audit_holds()
