"""`manage.py ingest_feed`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from quotas.reconciliation.ingest.tests.feeds import ndjson_line
from tests.database import rows_of
from tests.factories import make_backend

VLLM = (
    b'{"v":1,"finished_unix":%d.5,"path":"/v1/chat/completions","status":200,"whole":true,'
    b'"request_id":"chatcmpl-%s","x_request_id":"%s","usage":{"prompt_tokens":18,"cached_tokens":0,'
    b'"completion_tokens":16,"reasoning_tokens":null}}\n'
)


def vllm_line() -> bytes:
    from quotas.reconciliation.ingest.tests.feeds import attempt_name, moment

    name = attempt_name().encode()
    return VLLM % (int(moment().timestamp()), name, name)


@pytest.fixture
def backend() -> str:
    backend_id = make_backend()
    (row,) = rows_of("models_catalog_servingbackend", id=backend_id)
    return str(row["code"])


def ingest(backend: str, *arguments: str, format: str = "vllm_middleware") -> str:
    said = io.StringIO()
    call_command("ingest_feed", "--backend", backend, "--format", format, *arguments, stdout=said)
    return said.getvalue()


def test_files_and_folders_are_read_once(backend: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(vllm_line() + b"rubbish\n" + vllm_line())
    (tmp_path / "b.jsonl").write_bytes(vllm_line() + vllm_line().rstrip())
    said = ingest(backend, str(tmp_path))
    assert f"{backend}-vllm_middleware" in said
    assert "4 lines of 2 files" in said
    assert "3 records: 3 new, 0 known" in said
    assert "not_json" in said
    assert "b.jsonl: its last line has no end yet" in said
    again = ingest(backend, "--closed", str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl"))
    assert "1 lines of 2 files" in again
    assert "1 records: 1 new" in again
    (feed,) = rows_of("models_catalog_usagefeed", code=f"{backend}-vllm_middleware")
    assert len(rows_of("quotas_feedfile", feed_id=feed["id"])) == 2
    assert not feed["folder"]


def test_standard_input(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = vllm_line()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line + line + b"rubbish")))
    said = ingest(backend, "--complete-to", "2026-01-01T00:00:00+00:00", "-")
    assert "2 records: 1 new, 1 known" in said
    assert "1 lines" in said
    (feed,) = rows_of("models_catalog_usagefeed", code=f"{backend}-vllm_middleware")
    (state,) = rows_of("quotas_feedstate", feed_id=feed["id"])
    assert state["complete_to"].year == 2026


@pytest.mark.parametrize(
    "arguments",
    [
        ["--backend", "no-such-backend", "--format", "vllm_middleware", "-"],
        ["--format", "vllm_middleware", "/no/such/file"],
        ["--format", "ndjson", "."],
        ["--format", "vllm_middleware", "--complete-to", "2026-01-01", "-"],
        ["--format", "vllm_middleware", "--complete-to", "1999-12-31T00:00:00Z", "."],
        ["--format", "vllm_middleware", "--complete-to", "2199-12-31T00:00:00Z", "."],
        ["--format", "nothing", "-"],
    ],
)
def test_wrong_arguments(backend: str, arguments: list[str]) -> None:
    if "--backend" not in arguments:
        arguments = ["--backend", backend, *arguments]
    with pytest.raises(CommandError) as caught:
        call_command("ingest_feed", *arguments)
    assert caught.value.returncode == 2 or "argument" in str(caught.value)


def test_a_code_is_of_one_format(backend: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(ndjson_line())
    ingest(backend, "--feed", f"{backend}-x", str(tmp_path))
    with pytest.raises(CommandError) as caught:
        ingest(backend, "--feed", f"{backend}-x", str(tmp_path), format="sglang_log")
    assert caught.value.returncode == 2
