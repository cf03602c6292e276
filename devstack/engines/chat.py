"""Serves one chat call: validates, decodes, writes in the flavour's way or misbehaves, keeps books."""

from __future__ import annotations

import asyncio
import time

import msgspec

from devstack.engines.books import Books, Ending, RequestRecord
from devstack.engines.call import Call, ChatRequest
from devstack.engines.decoding import decode
from devstack.engines.dialects.base import Dialect, EngineError, Json
from devstack.engines.directive import Directive, DirectiveError, Fault, parse_directive
from devstack.engines.exchange import ClientGoneError, Exchange
from devstack.engines.options import EngineOptions
from devstack.engines.tokens import count_prompt_tokens, last_user_text, token_text

MAX_CALL_S = 900.0
MAX_HANG_S = 120.0

_CUTS = frozenset({"reset_after", "close_after", "hang_after", "error_event_after"})
_DONE = b"data: [DONE]\n\n"
_HTML = b"<!doctype html><html><head><title>Welcome</title></head><body>It works!</body></html>\n"
_WRONG_JSON = b'[1, "not a completion", null]\n'
_GARBAGE_EVENTS = (
    b'data: {"id": "chatcmpl-\n\n:\xff\xfe\x00\nevent nonsense\n\ndata: 42\n\ndata: }{\n\ndata: [DONE]\n\n'
)


class ChatService:
    """Everything behind POST /v1/chat/completions."""

    def __init__(self, options: EngineOptions, dialect: Dialect, books: Books) -> None:
        self._options = options
        self._dialect = dialect
        self._books = books

    async def serve(self, exchange: Exchange, refusal: EngineError | None) -> None:
        """Serves one request to its end, or answers with `refusal`. Every way out closes its record."""
        try:
            body = await exchange.read_body()
        except ClientGoneError:
            return
        record = self._books.open(exchange.path, exchange.raw_headers, body)
        turn = _Turn(exchange, self._dialect, self._books, record)
        try:
            async with asyncio.timeout(MAX_CALL_S):
                if refusal is not None:
                    raise refusal
                await self._answer(turn, body)
        except EngineError as refused:
            turn.refuse(refused)
            await exchange.respond_error(refused)
        except TimeoutError:
            turn.conclude("time_limit")
            await exchange.link.reset()
        finally:
            turn.conclude("stopped")

    async def _answer(self, turn: _Turn, body: bytes) -> None:
        request = self._read(turn, body)
        directive = self._read_directive(request)
        turn.describe(request, directive)
        if directive.fault is not None and await turn.fail_before(directive.fault):
            return
        call = self._admit(turn, request, directive)
        if request.stream:
            await turn.stream(call)
        else:
            await turn.plain(call)

    def _read(self, turn: _Turn, body: bytes) -> ChatRequest:
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise self._dialect.invalid_json(body, str(wrong)) from wrong
        return self._dialect.read_request(decoded, turn.exchange.headers)

    def _read_directive(self, request: ChatRequest) -> Directive:
        try:
            return parse_directive(last_user_text(request.messages))
        except DirectiveError as wrong:
            raise self._dialect.reject(400, f"sim: {wrong}", "sim_directive_error") from wrong

    def _admit(self, turn: _Turn, request: ChatRequest, directive: Directive) -> Call:
        counted = count_prompt_tokens(request.messages) if directive.prompt is None else directive.prompt
        cap = self._dialect.target_tokens(request, counted)
        target = min(cap, directive.tokens)
        rate = directive.rate_per_s
        call = Call(
            request=request,
            directive=directive,
            record=turn.record,
            wire_id=self._dialect.make_wire_id(request, turn.exchange.headers),
            model=self._dialect.response_model(request),
            created_unix=int(time.time()),
            prompt_tokens=counted,
            cached_tokens=min(directive.cached, counted),
            target_steps=target,
            reasoning_tokens=min(directive.reasoning, target),
            finish_reason="length" if directive.tokens >= cap else "stop",
            rate_per_s=self._options.tokens_per_s if rate is None else rate,
        )
        turn.admit(call)
        return call


class _Turn:
    """One request on its way through the engine, and its record."""

    def __init__(self, exchange: Exchange, dialect: Dialect, books: Books, record: RequestRecord) -> None:
        self.exchange = exchange
        self.record = record
        self._dialect = dialect
        self._books = books
        self._call: Call | None = None
        self._concluded = False

    def describe(self, request: ChatRequest, directive: Directive) -> None:
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
        self._books.close(self.record, ended)

    def refuse(self, error: EngineError) -> None:
        """Books a refusal."""
        self.record.status = error.status
        self.conclude("rejected")

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
                error = self._dialect.error_body(fault.number, f"Simulated failure {fault.number}.")
                await self.exchange.respond_json(fault.number, error)
            case "nonsense":
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

    # Plain responses.

    async def plain(self, call: Call) -> None:
        """Decodes all, then answers with one JSON body."""
        fault = call.directive.fault
        cutting = fault is not None and fault.name in _CUTS
        limit = min(fault.number, call.target_steps) if fault is not None and cutting else call.target_steps
        async for _ in decode(call, self.exchange.link, self._dialect, limit_steps=limit):
            pass
        if self.exchange.link.lost:
            self.conclude("client_gone")
        elif fault is not None and fault.name == "error_event_after":
            self.record.status = 500
            self.conclude("fault")
            await self.exchange.respond_json(500, self._dialect.error_event())
        else:
            self.record.status = 200
            body = msgspec.json.encode(self._dialect.plain_body(call))
            await self._send_plain(call, body, fault if cutting else None)

    async def _send_plain(self, call: Call, body: bytes, cut: Fault | None) -> None:
        if cut is not None:
            self.record.reported_completion_tokens = None
            await self.exchange.start(200, self._dialect.json_head(), length=len(body))
            await self.exchange.write(body[: len(body) // 2])
            await self._cut(cut)
            return
        self.record.sent_tokens = call.generated_tokens
        self.conclude(_natural_end(call))
        await self.exchange.respond(200, self._dialect.json_head(), body, dribble_ms=_dribble_ms(call))

    # Streams.

    async def stream(self, call: Call) -> None:
        """Writes each token as it is decoded, one event and one chunk each."""
        exchange, dialect = self.exchange, self._dialect
        fault = call.directive.fault
        cut = fault if fault is not None and fault.name in _CUTS else None
        limit = call.target_steps if cut is None else min(cut.number, call.target_steps)
        if dialect.headers_at_once:
            await self._start_stream(call)
        async for count in decode(call, exchange.link, dialect, limit_steps=limit):
            if self.record.status is None:
                await self._start_stream(call)
            for step in range(call.steps - count + 1, call.steps + 1):
                await self._write_step(call, step)
        if exchange.link.lost:
            self.conclude("client_gone")
            return
        if call.steps == 0:
            await self._start_stream(call)
            await self._write_roles(call)
        if cut is None:
            await self._end_stream(call)
        elif cut.name == "error_event_after":
            await exchange.write(_event(dialect.error_event()))
            self.conclude("fault")
            await self._finish_stream(_DONE)
        else:
            await self._cut(cut)

    async def _start_stream(self, call: Call) -> None:
        if self.record.status is None:
            self.record.status = 200
            await self.exchange.start(200, self._dialect.stream_head(), dribble_ms=_dribble_ms(call))

    async def _write_roles(self, call: Call) -> None:
        for index in range(call.request.n):
            await self.exchange.write(_event(self._dialect.role_chunk(call, index)))

    async def _write_step(self, call: Call, step: int) -> None:
        exchange, dialect = self.exchange, self._dialect
        if step == 1 and dialect.roles_first:
            await self._write_roles(call)
        text = token_text(step, call.reasoning_tokens)
        if step == 1 and call.directive.fault is not None and call.directive.fault.name == "big_line":
            text += "x" * call.directive.fault.number
        for index in range(call.request.n):
            if step == 1 and not dialect.roles_first:
                await exchange.write(_event(dialect.role_chunk(call, index)))
            await exchange.write(_event(dialect.token_chunk(call, index, step, text)))
            if not exchange.link.lost:
                self.record.sent_tokens += 1

    async def _end_stream(self, call: Call) -> None:
        exchange, dialect = self.exchange, self._dialect
        chunks: list[Json | None] = []
        for index in range(call.request.n):
            chunks.append(dialect.finish_chunk(call, index))
            if dialect.usage_per_choice:
                chunks.append(dialect.usage_chunk(call))
        if not dialect.usage_per_choice:
            chunks.append(dialect.usage_chunk(call))
        for chunk in chunks:
            if chunk is not None:
                await exchange.write(_event(chunk))
        self.conclude("client_gone" if exchange.link.lost else _natural_end(call))
        await self._finish_stream(b"" if call.directive.has_fault("no_done") else _DONE)

    async def _finish_stream(self, last: bytes) -> None:
        if last:
            await self.exchange.write(last)
        await self.exchange.finish()
        if self._dialect.closes_streams:
            await self.exchange.link.close()


def _event(chunk: Json) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def _natural_end(call: Call) -> Ending:
    return "length" if call.finish_reason == "length" else "stop"


def _dribble_ms(call: Call) -> int:
    fault = call.directive.fault
    return fault.number if fault is not None and fault.name == "slow_headers" else 0
