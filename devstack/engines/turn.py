"""One request on its way through the engine: its slots, its tokens, its faults, its record."""

from __future__ import annotations

import msgspec

from devstack.engines.books import Books, Ending, RequestRecord
from devstack.engines.call import Call, EngineRequest
from devstack.engines.decoding import decode
from devstack.engines.dialects.base import Header
from devstack.engines.directive import Directive, Fault
from devstack.engines.exchange import Exchange
from devstack.engines.feeds.faults import CallFault
from devstack.engines.feeds.live import Feeds
from devstack.engines.formats.base import Format, Stream
from devstack.engines.machine import Machine

MAX_HANG_S = 120.0

_CUTS = frozenset({"reset_after", "close_after", "hang_after", "error_event_after"})
_HTML = b"<!doctype html><html><head><title>Welcome</title></head><body>It works!</body></html>\n"
_WRONG_JSON = b'[1, "not a completion", null]\n'
_GARBAGE = b"\x00\xff\xfe{ nothing that means anything\n\n"
_GARBAGE_EVENTS = (
    b'data: {"id": "chatcmpl-\n\n:\xff\xfe\x00\nevent nonsense\n\ndata: 42\n\ndata: }{\n\ndata: [DONE]\n\n'
)


class Turn:
    """Its record is closed once, whatever happens."""

    def __init__(
        self,
        exchange: Exchange,
        form: Format,
        machine: Machine,
        books: Books,
        feeds: Feeds,
        record: RequestRecord,
    ) -> None:
        self.exchange = exchange
        self.record = record
        # What the dice say of this call.
        self.chance: CallFault | None = None
        self._form = form
        self._dialect = form.dialect
        self._machine = machine
        self._books = books
        self._feeds = feeds
        self._call: Call | None = None
        self._holds_slots = False
        self._concluded = False

    def describe(self, request: EngineRequest, directive: Directive) -> None:
        """Books what was asked for."""
        self.record.model = request.model
        self.record.stream = request.stream
        self.record.n = request.n
        self.record.cap_tokens = request.cap_tokens
        if directive.fault is not None:
            self.record.fault = str(directive.fault)

    def admit(self, call: Call) -> None:
        """Books a call that will be computed. Raises EngineError where the engine refuses it after all."""
        self._dialect.begin(call)
        self._call = call
        self._dialect.counters.admitted(call)
        self.record.wire_id = call.wire_id
        self._feeds.opened(call)

    def conclude(self, ended: Ending) -> None:
        """Ends the call in counters and books, once.

        It comes before the last bytes are written, so that whoever has read them finds the books right.
        """
        if self._concluded:
            return
        self._concluded = True
        call = self._call
        if call is not None:
            call.aborted = call.aborted or ended in ("fault", "stopped", "time_limit")
            self.record.aborted = call.aborted
            self._dialect.counters.released(call)
            self._dialect.end(call)
            if self._holds_slots:
                self._machine.leave(call)
            self.record.told = self._feeds.ended(call, ended)
        self._books.close(self.record, ended)

    def refuse(self, status: int) -> None:
        """Books a refusal."""
        self.record.status = status
        self.conclude("rejected")

    async def _enter(self, call: Call) -> bool:
        """Waits for slots; False when the client has left meanwhile."""
        counters = self._dialect.counters
        counters.queues(1)
        try:
            self._holds_slots = await self._machine.enter(call, self.exchange.link)
        finally:
            counters.queues(-1)
        if not self._holds_slots:
            call.aborted = True
            self.conclude("client_gone")
        return self._holds_slots

    # Faults that come before anything is computed.

    async def fail_before(self, fault: Fault) -> bool:
        """Misbehaves if the fault comes before the computing. False when it comes later."""
        link = self.exchange.link
        match fault.name:
            case "reset_before":
                self.conclude("fault")
                await link.reset()
            case "close_before":
                self.conclude("fault")
                await link.close()
            case "hang_before":
                await self._hang()
            case "status":
                self.record.status = fault.number
                self.conclude("fault")
                error = self._dialect.reject(fault.number, f"Simulated failure {fault.number}.")
                await self.exchange.respond_error(self._form.error(error))
            case "nonsense" if fault.kind != "type":
                await self._talk_nonsense(fault.kind or ("sse" if self.record.stream else "html"))
            case _:
                return False
        return True

    async def _talk_nonsense(self, kind: str) -> None:
        self.record.status = 200
        self.conclude("fault")
        if kind == "html":
            await self.exchange.respond(200, [(b"content-type", b"text/html; charset=utf-8")], _HTML)
        elif kind == "json":
            await self.exchange.respond(200, self._dialect.json_head(), _WRONG_JSON)
        elif kind == "empty":
            await self.exchange.respond(200, self._dialect.json_head(), b"")
        else:
            await self.exchange.start(200, self._dialect.stream_head())
            await self.exchange.finish(_GARBAGE_EVENTS)

    async def _hang(self) -> None:
        gone = await self.exchange.link.pause(MAX_HANG_S)
        self.conclude("client_gone" if gone else "fault")
        if not gone:
            await self.exchange.link.close()

    async def _cut(self, fault: Fault) -> None:
        """Breaks a response off where it is."""
        link = self.exchange.link
        if self._call is not None:
            self._call.aborted = True
        if fault.name == "hang_after":
            await self._hang()
            return
        await link.settle()
        self.conclude("fault")
        if fault.name == "reset_after":
            await link.reset()
        else:
            await link.close()

    def _head(self, call: Call, usual: list[Header]) -> list[Header]:
        """The head of an answer, which a fault makes wrong."""
        fault = call.directive.fault
        wrong = fault is not None and fault.name == "nonsense"
        return [(b"content-type", b"text/plain; charset=utf-8")] if wrong else usual

    # Plain responses.

    async def plain(self, call: Call) -> None:
        """Decodes all, then answers with one JSON body."""
        fault = call.directive.fault
        cutting = fault is not None and fault.name in _CUTS
        limit = min(fault.number, call.target_steps) if fault is not None and cutting else call.target_steps
        if not await self._enter(call):
            return
        async for _ in decode(call, self.exchange.link, self._dialect, self._machine, limit_steps=limit):
            pass
        if self.exchange.link.lost or (self._machine.is_frozen and call.aborted):
            self.conclude("client_gone")
        elif fault is not None and fault.name == "error_event_after":
            self.record.status = 500
            self.conclude("fault")
            await self.exchange.respond_json(500, self._form.failure_body())
        else:
            self.record.status = 200
            body = msgspec.json.encode(self._form.plain(call))
            if fault is not None and fault.name == "garbage_after":
                body = body[: len(body) // 2] + _GARBAGE
            await self._send_plain(call, body, fault if cutting else None)

    async def _send_plain(self, call: Call, body: bytes, cut: Fault | None) -> None:
        head = self._head(call, self._dialect.json_head())
        if cut is not None:
            self.record.reported_completion_tokens = None
            await self.exchange.start(200, head, length=len(body))
            await self.exchange.write(body[: len(body) // 2])
            await self._cut(cut)
            return
        self.record.sent_tokens = call.generated_tokens
        self.conclude(_natural_end(call))
        await self.exchange.respond(200, head, body, dribble_ms=_dribble_ms(call))

    # Streams.

    async def stream(self, call: Call) -> None:
        """Writes each token as it is decoded, one event and one chunk each."""
        fault = call.directive.fault
        cut = fault if fault is not None and fault.name in _CUTS else None
        limit = call.target_steps if cut is None else min(cut.number, call.target_steps)
        stream = self._form.stream(call)
        if self._dialect.headers_at_once:
            await self._start_stream(call)
        if not await self._enter(call):
            return
        async for count in decode(call, self.exchange.link, self._dialect, self._machine, limit_steps=limit):
            if self.record.status is None:
                await self._start_stream(call)
            await self._write_steps(stream, call.steps - count + 1, call.steps)
        if self.exchange.link.lost or (self._machine.is_frozen and call.aborted):
            self.conclude("client_gone")
            return
        if call.steps == 0:
            await self._start_stream(call)
            for event in stream.opening():
                await self.exchange.write(event)
        if cut is None:
            await self._end_stream(stream, call)
        elif cut.name == "error_event_after":
            self.conclude("fault")
            await self._finish_stream(stream.failure())
        else:
            await self._cut(cut)

    async def _start_stream(self, call: Call) -> None:
        if self.record.status is None:
            self.record.status = 200
            head = self._head(call, self._form.stream_head())
            await self.exchange.start(200, head, dribble_ms=_dribble_ms(call))

    async def _write_steps(self, stream: Stream, first: int, last: int) -> None:
        exchange, record = self.exchange, self.record
        fault = stream.call.directive.fault
        garbage_step = fault.number if fault is not None and fault.name == "garbage_after" else -1
        for step in range(first, last + 1):
            if step == 1:
                for event in stream.opening():
                    await exchange.write(event)
            for event, tokens in stream.token(step):
                await exchange.write(event)
                if not exchange.link.lost:
                    record.sent_tokens += tokens
            if step == garbage_step:
                await exchange.write(_GARBAGE)

    async def _end_stream(self, stream: Stream, call: Call) -> None:
        for event in stream.ending():
            await self.exchange.write(event)
        # Made before the books are closed: in some formats it is this event that reports the usage.
        last = b"" if call.directive.has_fault("no_done") else stream.last()
        self.conclude("client_gone" if self.exchange.link.lost else _natural_end(call))
        await self._finish_stream(last)

    async def _finish_stream(self, last: bytes) -> None:
        if last:
            await self.exchange.write(last)
        await self.exchange.finish()
        if self._dialect.closes_streams:
            await self.exchange.link.close()


def _natural_end(call: Call) -> Ending:
    return "length" if call.finish_reason == "length" else "stop"


def _dribble_ms(call: Call) -> int:
    fault = call.directive.fault
    return fault.number if fault is not None and fault.name == "slow_headers" else 0
