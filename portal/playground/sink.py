"""Turns the events of a model's stream into what a page is sent, losing and doubling nothing."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from portal.kit.sse import EventSplitter, event_data
from portal.playground.messages import Delta, Outgoing, Started

logger = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(dict[str, Any]).decode
# The runtime hands over whole events, each within its own limit.
MAX_RUN_BYTES = 64 * 2**20
_COUNTS = ("usage", "timings")
_REASONING = ("reasoning_content", "reasoning")


class SocketSink:
    """Where one call's answer goes. Each method returns when the bytes have left for the browser.

    emit: sends one message; OSError when the browser is gone.
    on_gone: stops the call; the cancellation arrives at the next moment of waiting.
    """

    writer = None

    def __init__(
        self,
        run_number: int,
        request_id: str,
        *,
        emit: Callable[[Outgoing], Awaitable[None]],
        must_stop: Callable[[], bool],
        on_gone: Callable[[], None],
    ) -> None:
        self.ttft_ms: int | None = None
        self.first_token_s: float | None = None
        self.finish_reason = ""
        self.has_counts = False
        self.failure: dict[str, Any] | None = None
        self._number = run_number
        self._request_id = request_id
        self._emit = emit
        self._must_stop = must_stop
        self._on_gone = on_gone
        self._started_s = time.monotonic()
        self._splitter = EventSplitter(MAX_RUN_BYTES)

    def add_headers(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """A socket's messages have none."""

    async def start(self, *, status: int, content_type: bytes) -> None:
        self.first_token_s = time.monotonic()
        self.ttft_ms = int((self.first_token_s - self._started_s) * 1000)
        await self._leave_or(Started(self._number, self._request_id, self.ttft_ms))

    async def send(self, data: bytes) -> None:
        """Events that arrived together become one message."""
        text: list[str] = []
        reasoning: list[str] = []
        for event in self._splitter.feed(data):
            payload = event_data(event)
            if payload is None or payload == b"[DONE]":
                continue
            for delta in self._deltas(_read(payload)):
                text.append(_string(delta.get("content")))
                reasoning.extend(_string(delta.get(name)) for name in _REASONING if delta.get(name))
        message = Delta(self._number, "".join(text), "".join(reasoning))
        if message.text or message.reasoning:
            await self._leave_or(message)

    async def answer(self, body: bytes, *, content_type: bytes) -> None:
        """A whole answer; the playground only asks for streams, but a sink takes both."""
        await self.start(status=200, content_type=content_type)
        value = _read(body)
        for choice in value.get("choices") or ():
            choice["delta"] = choice.pop("message", None) or {}
        await self.send(b"data: " + msgspec.json.encode(value) + b"\n\n")

    def _deltas(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        if isinstance(value.get("error"), dict):
            self.failure = value["error"]
            return []
        if any(value.get(name) for name in _COUNTS):
            self.has_counts = True
        choices = [choice for choice in value.get("choices") or () if isinstance(choice, dict)]
        for choice in choices:
            self.finish_reason = _string(choice.get("finish_reason")) or self.finish_reason
        return [choice["delta"] for choice in choices if isinstance(choice.get("delta"), dict)]

    async def _leave_or(self, message: Outgoing) -> None:
        try:
            if not self._must_stop():
                await self._emit(message)
                return
        except OSError:
            # The runtime would take it for a failure of the backend's connection.
            logger.debug("playground.client.gone")
        # What did not leave must not be counted as delivered, so the call ends here.
        self._on_gone()
        await asyncio.sleep(0)
        raise asyncio.CancelledError


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read(payload: bytes) -> dict[str, Any]:
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        # Half of a surrogate pair is valid JSON and no valid text.
        value = json.loads(payload.decode(errors="replace"))
        clean = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
        value = json.loads(clean.decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        logger.warning("playground.event.unreadable", extra={"bytes": len(payload)})
        return {}
    return value if isinstance(value, dict) else {}
