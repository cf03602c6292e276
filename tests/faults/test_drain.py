"""SIGTERM while streams are open."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx2 as httpx

from tests.database import rows_of
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, holds_of, pending_holds, price_nanos, usage_of
from tests.faults.streams import join_all, streaming
from tests.gateway_process import start_gateway

DRAIN_S = 3
SHORT, LONG = 15, 15


def readiness(url: str) -> int | None:
    """The status of /readyz; None when the gateway takes no connections any more."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code
    except httpx.TransportError:
        return None


def test_streams_end_within_the_drain_or_are_cut_and_all_is_billed(
    set_stage: SetStage, tmp_path: Path
) -> None:
    stage = set_stage("llamacpp")
    gateway = start_gateway(tmp_path, SLUICE_DRAIN_S=str(DRAIN_S), SLUICE_LEASE_S="20")
    try:
        with (
            streaming(
                gateway.api_base, stage.token, stage.slug, count=LONG, tokens=4_000, rate=25
            ) as long_ones,
            streaming(
                gateway.api_base, stage.token, stage.slug, count=SHORT, tokens=50, rate=25
            ) as short_ones,
        ):
            os.kill(gateway.pid, signal.SIGTERM)
            started_s = time.monotonic()
            status = readiness(gateway.url)
            assert status in (503, None)
            exit_code = gateway.child.popen.wait(DRAIN_S + 15)
            took_s = time.monotonic() - started_s
            held = pending_holds(stage.tenant_id)
            join_all([*long_ones, *short_ones])
    finally:
        gateway.stop()
    print(
        f"/readyz said {status} after SIGTERM; exit code {exit_code} after {took_s:.1f} s, {held} holds open"
    )
    assert exit_code == 0, gateway.log()
    assert held == 0
    assert {stream.ending for stream in short_ones} == {"done"}
    assert {stream.words for stream in short_ones} == {50}
    assert {stream.ending for stream in long_ones} == {"error_event"}
    assert {stream.error["code"] for stream in long_ones} == {"overloaded"}
    usage, holds = usage_of(stage.tenant_id), holds_of(stage.tenant_id)
    assert len(usage) == SHORT + LONG
    for stream in [*short_ones, *long_ones]:
        (record,) = usage[stream.call_id]
        assert record["completion_tokens"] == stream.words
        assert record["charged_nanos"] == price_nanos(record["prompt_tokens"], stream.words)
        assert (holds[stream.call_id]["state"], holds[stream.call_id]["resolved_by"]) == ("POSTED", "GATEWAY")
        (attempt,) = rows_of("quotas_attempt", request_id=stream.call_id)
        assert attempt["outcome"] == ("COMPLETED" if stream in short_ones else "CUT")
    assert_audit_holds()
