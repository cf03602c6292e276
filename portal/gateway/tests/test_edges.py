"""The edges of the connection and of the backend's honesty: heads without end, pipelining, odd answers."""

from __future__ import annotations

import json
import socket

import pytest

from devstack.engines.testing import RunningEngine, sim
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import make_stage, on, requests_of, stored
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for


def _connect(gateway: RunningGateway) -> socket.socket:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("begin", [b"GET /" + b"a" * 100, b"GET /healthz HTTP/1.1\r\nX: "])
def test_a_head_without_end_is_cut(gateway: RunningGateway, begin: bytes) -> None:
    with _connect(gateway) as connection:
        connection.sendall(begin)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _send_for_ever(connection)


def _send_for_ever(connection: socket.socket) -> None:
    for _ in range(400):
        connection.sendall(b"b" * 65536)


def test_a_request_behind_a_running_one_ends_the_connection_and_the_call(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    """The server would not notice that such a client leaves, so it is not let in."""
    stage = make_stage(gateway, on(engines["vllm"], "vllm"))
    body = json.dumps(stage.body(sim(tokens=200, rate=50), stream=True)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {stage.tenant.key.token}\r\n\r\n"
    )
    with _connect(gateway) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: _is_closed(connection), 10, "the connection's end")
    (request_id,) = requests_of(stage.tenant)
    assert stored(request_id).outcomes == ["CLIENT_GONE"]


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except OSError:
        return True


@pytest.mark.parametrize("stream", [False, True])
def test_an_id_with_a_nul_does_not_keep_a_call_from_being_settled(
    gateway: RunningGateway, stream: bool
) -> None:
    answer_body = (
        b'{"id":"a\\u0000b","object":"chat.completion","choices":[{"delta":{"content":"hi"},'
        b'"message":{"content":"hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}'
    )

    def script(exchange: Exchange) -> None:
        if stream:
            exchange.begin_stream()
            exchange.chunk(b"data: " + answer_body + b"\n\ndata: [DONE]\n\n")
            exchange.end_stream()
        else:
            exchange.answer("application/json", answer_body)
        exchange.close()

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answer = stage.stream("hi") if stream else stage.ask("hi")
    assert answer.status == 200
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.usage["completion_tokens"] == 1


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"object":"error","message":"/srv/engine.py on gpu-host-7 failed"}\n\n',
        b'event: error\ndata: {"message":"/srv/engine.py on gpu-host-7 failed"}\n\n',
        b'data: {"id":"x","error":{"message":"/srv/engine.py on gpu-host-7 failed"}}\n\n',
    ],
)
def test_a_backend_s_own_words_about_its_failure_stay_inside(gateway: RunningGateway, event: bytes) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.chunk(b'data: {"id":"x","choices":[{"delta":{"content":"hi"}}]}\n\n')
        exchange.chunk(event + b"data: [DONE]\n\n")
        exchange.end_stream()
        exchange.close()

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answer = stage.stream("hi")
    assert b"gpu-host-7" not in answer.body
    assert answer.chunks[-1]["error"]["code"] == "backend_failed"
    assert stored(answer.request_id).outcomes == ["BACKEND_FAILED"]


def test_an_error_in_a_whole_answer_is_an_error(gateway: RunningGateway) -> None:
    def script(exchange: Exchange) -> None:
        exchange.answer("application/json", b'{"choices":[],"error":{"message":"gpu-host-7"}}')
        exchange.close()

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answer = stage.ask("hi")
    assert answer.status == 502
    assert b"gpu-host-7" not in answer.body
    assert stored(answer.request_id).hold["state"] == "VOIDED"


def test_a_body_of_empty_lists_is_refused_before_it_is_read(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("generic", "http://127.0.0.1:9"))
    answer = stage.post(b'{"model":"x","messages":[' + b"[]," * 300_000 + b"[]]}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")


def test_an_absurd_count_is_charged_up_to_what_was_held_and_spoils_nothing(gateway: RunningGateway) -> None:
    """Counts beyond what any number holds: the call is served, and its backend serves on."""
    usage = {"prompt_tokens": 1, "completion_tokens": 10**400}
    body = json.dumps({"id": "x", "choices": [{"index": 0, "message": {"content": "hi"}}], "usage": usage})

    with ScriptedBackend(lambda exchange: exchange.answer("application/json", body.encode())) as backend:
        stage = make_stage(gateway, ("vllm", backend.url))
        for _ in range(3):
            answer = stage.ask(max_tokens=5)
            assert answer.status == 200
            assert stored(answer.request_id).outcomes == ["COMPLETED"]
