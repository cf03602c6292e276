"""The simulator as a process: starting, stopping, its key, its record file, its parent."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devstack.engines.options import FLAVOURS, Flavour, parse_options
from devstack.engines.testing import EngineStartError, sim, start_engine
from devstack.engines.tests.raw import RawClient, ask, chat, streamed

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_api_key(flavour: Flavour):
    with start_engine(flavour, api_key="sk-test", tokens_per_s=0) as engine:
        for headers, status in (({}, 401), ({"Authorization": "Bearer sk-other"}, 401)):
            assert (await ask(engine, chat("hi"), headers=headers)).status == status
        right = await ask(engine, chat("hi"), headers={"Authorization": "Bearer sk-test"})
        assert right.status == 200
        assert engine.totals()["ended"] == {"rejected": 2, "stop": 1}
        for path, open_on in (("/health", FLAVOURS), ("/metrics", ("vllm", "sglang")), ("/v1/models", ())):
            async with await RawClient.connect(engine) as client:
                await client.send(b"", method="GET", path=path)
                assert ((await client.read()).status == 401) is (flavour not in open_on)


async def test_record_file(tmp_path: Path):
    path = tmp_path / "requests.jsonl"
    with start_engine("vllm", tokens_per_s=0, record=path, model="other/model", seed=7) as engine:
        first = await ask(engine, chat(sim(tokens=2)) | {"model": "other/model"})
        await ask(engine, streamed(sim(fault="reset_after:3")) | {"model": "other/model"})
        books = engine.requests()
    assert [json.loads(line) for line in path.read_text().splitlines()] == books
    with start_engine("vllm", tokens_per_s=0, model="other/model", seed=7) as again:
        second = await ask(again, chat(sim(tokens=2)) | {"model": "other/model"})
    assert first.json()["id"] == second.json()["id"]


async def test_pace():
    with start_engine("vllm", tokens_per_s=100) as engine:
        started_s = time.perf_counter()
        answer = await ask(engine, streamed(sim(tokens=31, ttft_ms=100)))
        took_s = time.perf_counter() - started_s
        assert len(answer.words()) == 31
        # Only the lower bound is the simulator's promise; the upper one catches a lost factor.
        assert 0.4 <= took_s < 3.0


async def test_stop_and_kill_end_open_streams():
    for end in ("stop", "kill"):
        engine = start_engine("sglang", tokens_per_s=50)
        async with await RawClient.connect(engine) as client:
            await client.send(streamed(sim(tokens=100_000), max_tokens=8000))
            await client.read_events(2)
            status = await asyncio.to_thread(getattr(engine, end))
            assert status == {"stop": -signal.SIGTERM, "kill": -signal.SIGKILL}[end]
            assert (await client.read()).ending in ("closed", "reset")
        assert engine.stop() == status


def test_dies_with_its_parent():
    script = (
        "import sys; from devstack.engines.testing import start_engine;"
        "print(start_engine('generic').pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        process = os.pidfd_open(pid)
        try:
            parent.kill()
            parent.wait(5)
            readable, _, _ = select.select([process], [], [], 5)
            if not readable:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            assert readable, "the engine outlived its parent"
        finally:
            os.close(process)


def test_a_taken_port_is_an_error():
    with start_engine("generic") as engine:
        port = int(engine.url.rpartition(":")[2])
        assert 1024 < port < 32_768
        with pytest.raises(OSError, match="in use"):
            start_engine("generic", port=port)


def test_a_failed_start_says_why(tmp_path: Path):
    with pytest.raises(EngineStartError, match="No such file"):
        start_engine("generic", record=tmp_path / "missing" / "file")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--flavour", "tgi", "--port", "21000"],
        ["--flavour", "vllm"],
        ["--flavour", "vllm", "--port", "21000", "--fd", "3"],
        ["--flavour", "vllm", "--port", "x"],
        ["--flavour", "vllm", "--port", "21000", "--tokens-per-s", "-1"],
        ["--flavour", "vllm", "--port", "21000", "--context", "2"],
    ],
)
def test_wrong_options_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        parse_options(argv)
    assert "error:" in capsys.readouterr().err


def test_the_command_line_serves():
    with start_engine("generic") as engine:
        port = int(engine.url.rpartition(":")[2])
    command = [sys.executable, "-m", "devstack.engines", "--flavour", "llamacpp", "--port", str(port)]
    options = ["--api-key", "sk-x", "--tokens-per-s", "0", "--context", "512", "--model", "m", "--seed", "1"]
    process = subprocess.Popen([*command, *options], cwd=ROOT)
    try:
        asyncio.run(_answers(port))
    finally:
        process.terminate()
        process.wait(5)


async def _answers(port: int) -> None:
    """Something listens on the port within ten seconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
