"""The file that a centre loads into vLLM: it writes, it rotates, and it never disturbs what is served."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from models_catalog.engines.feeds import FeedFormat, FeedOptions, reader_of
from models_catalog.engines.feeds.tests import usage_log
from models_catalog.engines.feeds.tests.samples import ATTEMPT_ID, OURS, SECRET

USAGE = {"prompt_tokens": 18, "completion_tokens": 16, "prompt_tokens_details": {"cached_tokens": 4}}
RECORD = {"v": 1, "request_id": OURS}


@pytest.fixture
def module() -> ModuleType:
    return usage_log.load()


class Vllm:
    """An application that answers as vLLM does, and leaves its counts where vLLM leaves them."""

    def __init__(self, usage: object = USAGE, error: Exception | None = None, body: bytes = b"{}") -> None:
        self._usage = usage
        self._error = error
        self._body = body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        # Another middleware may have copied the scope; the state stays the same object.
        scope = dict(scope)
        scope["state"]["request_metadata"] = SimpleNamespace(
            request_id=f"chatcmpl-{OURS}", final_usage_info=self._usage
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self._error is not None:
            raise self._error
        await send({"type": "http.response.body", "body": self._body})


async def ask(
    middleware: Any, path: str = "/v1/chat/completions", request_id: bytes = OURS.encode()
) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await middleware({"type": "http", "path": path, "headers": [(b"X-Request-Id", request_id)]}, None, send)
    return sent


def written(folder: Path) -> list[Any]:
    return [
        json.loads(line)
        for file in sorted(folder.iterdir())
        for line in file.read_bytes().splitlines()
        if line
    ]


def test_one_line_a_request_in_a_file_of_the_process(module: ModuleType, tmp_path: Path) -> None:
    middleware = module.UsageLog(Vllm(body=SECRET.encode()), str(tmp_path / "made"))
    for _ in range(3):
        sent = asyncio.run(ask(middleware))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    middleware.lines.close()
    (file,) = (tmp_path / "made").iterdir()
    assert f"-{os.getpid()}-" in file.name
    assert file.stat().st_mode & 0o007 == 0
    text = file.read_bytes()
    assert SECRET.encode() not in text
    reader = reader_of(FeedFormat.VLLM_MIDDLEWARE, FeedOptions())
    entries = [reader.read(line) for line in text.splitlines()]
    assert len(entries) == 3
    for entry in entries:
        assert entry is not None
        assert (entry.attempt_id, entry.prompt_tokens, entry.cached_tokens) == (ATTEMPT_ID, 18, 4)


def test_the_folder_is_named_by_the_environment(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(tmp_path))
    middleware = module.UsageLog(Vllm())
    asyncio.run(ask(middleware))
    middleware.lines.close()
    assert len(written(tmp_path)) == 1


def test_other_traffic_passes(module: ModuleType, tmp_path: Path) -> None:
    middleware = module.UsageLog(Vllm(), str(tmp_path))
    asyncio.run(middleware({"type": "lifespan"}, None, None))
    middleware.lines.close()
    assert written(tmp_path) == []


def test_an_error_of_the_engine_stays_its_own(module: ModuleType, tmp_path: Path) -> None:
    middleware = module.UsageLog(Vllm(usage=None, error=RuntimeError("engine died")), str(tmp_path))
    with pytest.raises(RuntimeError, match="engine died"):
        asyncio.run(ask(middleware))
    middleware.lines.close()
    (line,) = written(tmp_path)
    assert (line["usage"], line["whole"]) == (None, False)


def test_a_state_that_nobody_expected_disturbs_no_request(module: ModuleType, tmp_path: Path) -> None:
    middleware = module.UsageLog(Vllm(usage={"prompt_tokens": object()}), str(tmp_path))
    assert len(asyncio.run(ask(middleware))) == 2
    middleware.lines.close()
    assert written(tmp_path) == []


def test_a_message_that_nobody_expected_reaches_whoever_asked(
    module: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # No bytes: watching fails, and what becomes of it is for the server to say.
    odd: Any = "an answer of another kind"
    middleware = module.UsageLog(Vllm(body=odd), str(tmp_path))
    sent = asyncio.run(ask(middleware, "/v1/responses"))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    middleware.lines.close()
    assert len(written(tmp_path)) == 1
    assert caplog.text.count("usage_log.failed") == 1
    assert "another kind" not in caplog.text


def test_a_descriptor_is_closed_once(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = module.LineFile(tmp_path)
    assert lines._write(b"{}\n")
    monkeypatch.setattr(module, "MAX_FILE_AGE_S", 0.0)
    closed: list[int] = []

    def failing(descriptor: int) -> None:
        closed.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "close", failing)
        assert not lines._write(b"{}\n")
        assert lines._write(b"{}\n")
    assert len(closed) == 1
    for descriptor in (*closed, lines._descriptor):
        os.close(descriptor)


@pytest.mark.parametrize("request_id", [b"", b"x" * 201, b"a\nb", b"\x00"])
def test_a_header_that_is_no_id_is_left_out(module: ModuleType, tmp_path: Path, request_id: bytes) -> None:
    middleware = module.UsageLog(Vllm(), str(tmp_path))
    asyncio.run(ask(middleware, request_id=request_id))
    middleware.lines.close()
    (line,) = written(tmp_path)
    assert line["x_request_id"] is None


def test_responses_are_counted_from_the_end_of_their_answer(module: ModuleType, tmp_path: Path) -> None:
    text = json.dumps({"text": 'he said "usage": {"input_tokens": 99, "output_tokens": 99}'})
    body = (
        text.encode()
        + b'"usage":{"input_tokens":17,"input_tokens_details":{"cached_tokens":3},"output_tokens":8}}'
    )
    middleware = module.UsageLog(Vllm(usage=None, body=body), str(tmp_path))
    asyncio.run(ask(middleware, path="/v1/responses"))
    asyncio.run(ask(middleware, path="/v1/chat/completions"))
    middleware.lines.close()
    responses, chat = written(tmp_path)
    assert responses["usage"] == {
        "prompt_tokens": 17,
        "cached_tokens": 3,
        "completion_tokens": 8,
        "reasoning_tokens": None,
    }
    assert chat["usage"] is None, "its own state is where a chat's counts are"


def test_a_full_disk_loses_nothing_once_there_is_room(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line fails as a whole, one in its middle; both are there in the end, each on its own line."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    really_write = os.write
    answers = iter([OSError(errno.ENOSPC, "No space left on device"), None, 5])

    def write(descriptor: int, data: bytes) -> int:
        if not data.lstrip().startswith(b'{"v"'):
            return really_write(descriptor, data)
        answer = next(answers, None)
        if isinstance(answer, OSError):
            raise answer
        return really_write(descriptor, data if answer is None else data[:answer])

    monkeypatch.setattr(os, "write", write)
    lines = module.LineFile(tmp_path)
    lines.put({**RECORD, "n": 1})
    lines.put({**RECORD, "n": 2})
    lines.close()
    (file,) = tmp_path.iterdir()
    whole = []
    for line in file.read_bytes().splitlines():
        try:
            whole.append(json.loads(line)["n"])
        except json.JSONDecodeError:
            assert len(line) == 5
    assert whole == [1, 2]


def test_nobody_waits_for_a_disk_that_stays_full(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_LINES", 10)
    monkeypatch.setattr(module, "MAX_FAREWELL_S", 0.1)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    (tmp_path / "file").write_text("a file is no folder")
    lines = module.LineFile(tmp_path / "file")
    for number in range(100):
        lines.put({**RECORD, "n": number})
    lines.close()
    assert (tmp_path / "file").read_text() == "a file is no folder"


def test_files_are_rotated(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    moments = iter(f"2026112{number}_000000" for number in range(10))
    monkeypatch.setattr(module.time, "strftime", lambda *_: next(moments))
    lines = module.LineFile(tmp_path)
    for number in range(9):
        lines.put({**RECORD, "n": number})
    lines.close()
    assert [line["n"] for line in written(tmp_path)] == list(range(9))
    assert len(list(tmp_path.iterdir())) > 2


def test_a_file_that_was_taken_away_is_made_anew(module: ModuleType, tmp_path: Path) -> None:
    lines = module.LineFile(tmp_path)
    lines.put({**RECORD, "n": 1})
    lines.close()
    for file in tmp_path.iterdir():
        file.unlink()
    assert lines._write(b'{"n":2}\n')
    assert written(tmp_path) == [{"n": 2}]


def test_lines_are_written_before_a_process_ends_and_after_it_was_forked(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(usage_log.FILE.parent)!r})
import usage_log
from pathlib import Path
lines = usage_log.LineFile(Path({str(tmp_path)!r}))
lines.put({{"who": "parent"}})
child = os.fork()
lines.put({{"who": "child" if child == 0 else "parent again"}})
if child:
    os.waitpid(child, 0)
sys.exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert sorted(line["who"] for line in written(tmp_path)) == ["child", "parent", "parent again"]
    assert len(list(tmp_path.iterdir())) == 2
