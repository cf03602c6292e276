"""The smallest benchmark of all: nothing about time, everything about exactness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.books import REPOSITORY

TIMEOUT_S = 280


@pytest.mark.timeout(TIMEOUT_S + 10)
def test_the_smallest_benchmark_is_exact_to_the_token(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    # On servers of its own: what it compares is everything in the database.
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--smallest", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "all agree" in answer.stdout
    result = json.loads(output.read_text())
    exactness = result["exactness"]
    assert exactness["differences"] == []
    assert exactness["audit_exit_code"] == 0
    assert exactness["sent"]["ok"] == exactness["served"]["requests"] == exactness["booked"]["requests"] > 0
    assert {run["scenario"] for run in result["runs"]} == {"plain", "light", "stream", "hold", "tenants"}
    assert all(run["outcome"]["failed"] == run["outcome"]["cut"] == 0 for run in result["runs"])
    streams = [run["figures"] for run in result["runs"] if run["scenario"] in ("stream", "hold")]
    assert streams
    assert all(figures["chunks_per_s"] > 0 and figures["chunk_delay_p50_ms"] > 0 for figures in streams)
