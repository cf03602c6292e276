"""Clients that stream, each in a thread of its own, and count what they get word by word."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import UUID

import httpx2 as httpx

from devstack.engines.testing import sim
from portal.kit.ids import PREFIXES, parse_public_id
from tests.waiting import wait_for

Ending = Literal["running", "done", "error_event", "refused", "broken"]

CLIENT_TIMEOUT_S = 60.0


def chat_body(model: str, text: str, *, max_tokens: int | None = None, stream: bool = True) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return body


class StreamClient(threading.Thread):
    """One streamed call. `words` counts the words of the answer as they arrive; every token is one.

    ending: done is the end mark or an orderly end, error_event an event that names an error, refused an
    answer other than 200, broken a connection that ended in the middle.
    """

    def __init__(
        self, api_base: str, token: str, body: dict[str, Any], *, http: httpx.Client | None = None
    ) -> None:
        super().__init__(daemon=True)
        self._http = http
        self._url, self._token, self._body = f"{api_base}/chat/completions", token, body
        self._leaving = threading.Event()
        self._text = ""
        self.ending: Ending = "running"
        self.status: int | None = None
        self.request_id: UUID | None = None
        self.retry_after: str | None = None
        self.error: dict[str, Any] = {}
        self.took_s = 0.0

    @property
    def words(self) -> int:
        return len(self._text.split())

    @property
    def call_id(self) -> UUID:
        """The id of the request, once the head of an answer has come."""
        assert self.request_id is not None
        return self.request_id

    def leave(self) -> None:
        """Close the connection at the next event."""
        self._leaving.set()

    def run(self) -> None:
        started_s = time.monotonic()
        try:
            if self._http is not None:
                self._read(self._http)
            else:
                with many_connections() as http:
                    self._read(http)
        except httpx.HTTPError:
            self.ending = "broken"
        finally:
            self.took_s = time.monotonic() - started_s

    def _read(self, http: httpx.Client) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        with http.stream("POST", self._url, json=self._body, headers=headers) as answer:
            self.request_id = parse_public_id(PREFIXES["request"], answer.headers["x-request-id"])
            self.retry_after = answer.headers.get("retry-after")
            self.status = answer.status_code
            if answer.status_code != 200:
                answer.read()
                self.error = answer.json()["error"]
                self.ending = "refused"
                return
            buffer = b""
            for piece in answer.iter_raw():
                *events, buffer = (buffer + piece).split(b"\n\n")
                for event in events:
                    self._note(event)
                if self._leaving.is_set():
                    return
        if self.ending == "running":
            self.ending = "done"

    def _note(self, event: bytes) -> None:
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            self.ending = "done"
            return
        decoded = json.loads(data)
        if "error" in decoded:
            self.ending, self.error = "error_event", decoded["error"]
            return
        for choice in decoded["choices"]:
            self._text += choice["delta"].get("content") or ""


def many_connections() -> httpx.Client:
    """A client that threads may share, with as many connections as they want."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.Client(timeout=CLIENT_TIMEOUT_S, trust_env=False, limits=limits)


@contextmanager
def streaming(
    api_base: str,
    token: str,
    model: str,
    *,
    count: int,
    tokens: int,
    rate: float,
    max_tokens: int | None = None,
    min_words: int = 1,
) -> Iterator[list[StreamClient]]:
    """So many streams of `tokens` tokens at `rate` a second, entered when each has got `min_words`.

    At the end all of them have ended, by themselves or because the test made them.
    """
    body = chat_body(model, "count " + sim(tokens=tokens, rate=rate), max_tokens=max_tokens or tokens)
    clients = [StreamClient(api_base, token, body) for _ in range(count)]
    for client in clients:
        client.start()
    try:
        wait_for(
            lambda: all(client.words >= min_words or not client.is_alive() for client in clients),
            30,
            f"{min_words} words in each of {count} streams",
        )
        assert all(client.is_alive() for client in clients), [
            (client.ending, client.error) for client in clients
        ]
        yield clients
    finally:
        for client in clients:
            client.leave()
        join_all(clients)


def join_all(threads: Sequence[threading.Thread], timeout_s: float = CLIENT_TIMEOUT_S) -> None:
    """Wait until all have ended. Errors: AssertionError."""
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads)
