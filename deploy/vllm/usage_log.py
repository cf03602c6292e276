"""Writes what vLLM counted for each request as one JSON line, for Sluice to compare with what it metered.

A single file that needs vLLM's own packages only. Put it into a folder, then start vLLM with

    PYTHONPATH=/that/folder SLUICE_USAGE_LOG_DIR=/var/log/vllm-usage \
        vllm serve … --enable-prompt-tokens-details --middleware usage_log.UsageLog

It writes ids, counts, the path and the status; never a prompt, an answer or a header other than X-Request-Id.
Serving does not wait for the disk: a thread writes, and when the disk is full it tries again each second
while up to MAX_WAITING_LINES lines wait; what comes then is lost, and logged as a number.

Files are `vllm-usage-<host>-<pid>-<UTC time>.jsonl`: each process its own, a new one each hour or at 64 MiB.
Nothing deletes them; whoever runs the centre does, when they have been read.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

FOLDER_VARIABLE = "SLUICE_USAGE_LOG_DIR"
MAX_FILE_BYTES = 64 * 2**20
MAX_FILE_AGE_S = 3600.0
MAX_WAITING_LINES = 20_000
RETRY_S = 1.0
# How long the last lines may take when the process ends.
MAX_FAREWELL_S = 3.0
MAX_ID = 200
# /v1/responses leaves no counts in the request's state: they are taken from the end of the answer.
RESPONSES_PATH = "/responses"
TAIL_BYTES = 16 * 2**10
USAGE_IN_TAIL = re.compile(rb'"usage":\s?(\{(?:[^{}]|\{[^{}]*\})*\})')

logger = logging.getLogger("sluice.usage_log")


class UsageLog:
    """ASGI middleware: passes everything on as it is, and notes the counts when a request has ended."""

    def __init__(self, app: Application, folder: str | None = None) -> None:
        self.app = app
        self.lines = LineFile(Path(folder or os.environ.get(FOLDER_VARIABLE) or "."))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Whoever copies the scope on the way to vLLM's handler still shares this one with us.
        state = scope.setdefault("state", {})
        seen = Seen(keeps_tail=scope["path"].endswith(RESPONSES_PATH))

        async def watched_send(message: Message) -> None:
            # Whatever is wrong in here is no matter of the request's.
            try:
                seen.watch(message)
            except Exception:
                if not seen.has_failed:
                    seen.has_failed = True
                    logger.exception("usage_log.failed")
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            try:
                self._note(scope, state, seen)
            except Exception:
                logger.exception("usage_log.failed")

    def _note(self, scope: Message, state: Any, seen: Seen) -> None:
        metadata = _member(state, "request_metadata")
        if metadata is None:
            return  # It did not get as far as the engine.
        usage = usage_of(_member(metadata, "final_usage_info")) or seen.usage_in_tail()
        self.lines.put(
            {
                "v": 1,
                "finished_unix": time.time(),
                "path": scope["path"],
                "status": seen.status,
                "whole": seen.is_whole,
                "request_id": _id(_member(metadata, "request_id")),
                "x_request_id": _id(_header(scope, b"x-request-id")),
                "usage": usage,
            }
        )


class Seen:
    """What went by on the way to the client."""

    def __init__(self, *, keeps_tail: bool) -> None:
        self.status: int | None = None
        self.is_whole = False
        self.has_failed = False
        self._keeps_tail = keeps_tail
        self._tail = b""

    def watch(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)
            if self._keeps_tail:
                self._tail = (self._tail + message.get("body", b""))[-TAIL_BYTES:]

    def usage_in_tail(self) -> dict[str, int | None] | None:
        # A text cannot hold this pattern: its quotation marks would be escaped.
        found = USAGE_IN_TAIL.findall(self._tail) if self.is_whole and self.status == 200 else []
        return usage_of(json.loads(found[-1])) if found else None


def usage_of(told: Any) -> dict[str, int | None] | None:
    """vLLM's own counts in one spelling, or None when it has none."""
    if told is None:
        return None
    prompt = _member(told, "prompt_tokens", "input_tokens")
    if prompt is None:
        return None
    prompt_details = _member(told, "prompt_tokens_details", "input_tokens_details")
    completion_details = _member(told, "completion_tokens_details", "output_tokens_details")
    return {
        "prompt_tokens": prompt,
        "cached_tokens": _member(prompt_details, "cached_tokens"),
        "completion_tokens": _member(told, "completion_tokens", "output_tokens") or 0,
        "reasoning_tokens": _member(completion_details, "reasoning_tokens"),
    }


def _member(holder: Any, *names: str) -> Any:
    """The first of these that the mapping or object has and that is not None."""
    for name in names:
        value = holder.get(name) if isinstance(holder, MutableMapping) else getattr(holder, name, None)
        if value is not None:
            return value
    return None


def _header(scope: Message, name: bytes) -> str | None:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            return str(value, "latin-1")
    return None


def _id(value: Any) -> str | None:
    """An id, unless it is none: a header is whatever a client sends."""
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_ID else None


class LineFile:
    """Lines on their way to the disk, and the thread that brings them there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] or "host"
        self._pid = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._ends_s: float | None = None
        self._lost = 0
        self._descriptor: int | None = None
        self._opened_s = 0.0
        self._is_torn = False
        self._has_complained = False

    def put(self, record: dict[str, Any]) -> None:
        """Never waits and never fails."""
        if self._pid != os.getpid():
            self._start()
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Gives what still waits a last chance."""
        if self._thread is None or self._pid != os.getpid():
            return
        self._ends_s = time.monotonic() + MAX_FAREWELL_S
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(MAX_FAREWELL_S)

    def _start(self) -> None:
        """In the process that serves, which may be a fork of the one that loaded this file."""
        self._pid = os.getpid()
        self._waiting = queue.Queue(MAX_WAITING_LINES)
        self._ends_s = None
        self._descriptor = None
        self._is_torn = False
        self._thread = threading.Thread(target=self._write_all, name="usage-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _write_all(self) -> None:
        while True:
            line = self._waiting.get()
            if line is None:
                return
            while not self._write(line):
                if self._ends_s is not None and time.monotonic() > self._ends_s:
                    return
                time.sleep(RETRY_S)
            if self._lost:
                logger.error("usage_log.lost lines=%d", self._lost)
                self._lost = 0

    def _write(self, line: bytes) -> bool:
        """Whether the line is in the file, whole."""
        try:
            descriptor = self._open()
            # What a full disk cut off must not run into the next line.
            whole = b"\n" + line if self._is_torn else line
            written = os.write(descriptor, whole)
        except OSError as error:
            self._complain(error)
            return False
        self._is_torn = written < len(whole)
        self._has_complained = self._is_torn
        return not self._is_torn

    def _open(self) -> int:
        if self._descriptor is not None:
            age_s = time.monotonic() - self._opened_s
            status = os.fstat(self._descriptor)
            # What has no name any more, nobody reads.
            if age_s < MAX_FILE_AGE_S and status.st_size < MAX_FILE_BYTES and status.st_nlink:
                return self._descriptor
            # Cleared first: a close that fails has closed it all the same, and the number may be another's.
            descriptor, self._descriptor, self._is_torn = self._descriptor, None, False
            os.close(descriptor)
        self._folder.mkdir(parents=True, exist_ok=True)
        moment = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
        path = self._folder / f"vllm-usage-{self._host}-{self._pid}-{moment}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._opened_s = time.monotonic()
        return self._descriptor

    def _complain(self, error: OSError) -> None:
        """Once, until it works again: a full disk must not fill the log as well."""
        if not self._has_complained:
            logger.error("usage_log.not_written %s", error.strerror)
            self._has_complained = True
