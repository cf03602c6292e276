"""Serves one call: validates, plans, and lets a turn write the answer in the flavour's way or misbehave."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import msgspec

from devstack.engines.books import Books, RequestRecord
from devstack.engines.bypass import bypass
from devstack.engines.call import Call, EngineRequest
from devstack.engines.dialects.base import Dialect, EngineError
from devstack.engines.directive import Directive, DirectiveError, Fault, parse_directive
from devstack.engines.exchange import ClientGoneError, Exchange
from devstack.engines.feeds.faults import CALL_FAULTS, CallFault, Dice, FeedFaults
from devstack.engines.feeds.foreign import draw_counts
from devstack.engines.feeds.live import Feeds
from devstack.engines.feeds.telling import WHOLE
from devstack.engines.formats.base import Format
from devstack.engines.machine import Machine
from devstack.engines.pieces import NoToolError, Piece, plan
from devstack.engines.turn import Turn

MAX_CALL_S = 900.0
MAX_LIE_TOKENS = 20


@dataclass(slots=True)
class Behaviour:
    """What the whole engine does until it is told otherwise. `fault` befalls every call that names none."""

    fault: Fault | None = None
    is_healthy: bool = True


class Service:
    """Everything behind the POST endpoints of /v1."""

    def __init__(
        self,
        dialect: Dialect,
        books: Books,
        machine: Machine,
        behaviour: Behaviour,
        feeds: Feeds,
        faults: FeedFaults,
    ) -> None:
        self._dialect = dialect
        self._books = books
        self._machine = machine
        self._behaviour = behaviour
        self._feeds = feeds
        self._dice: Dice[CallFault] = Dice(faults, CALL_FAULTS, "calls")
        self._live: dict[asyncio.Task[None], Turn] = {}
        self._lost: set[asyncio.Task[None]] = set()

    async def serve(self, exchange: Exchange, form: Format, refusal: EngineError | None) -> None:
        """Serves one request to its end, or answers with `refusal`. Every way out closes its record."""
        try:
            body = await exchange.read_body()
        except ClientGoneError:
            return
        record = self._books.open(exchange.path, exchange.raw_headers, body)
        turn = Turn(exchange, form, self._machine, self._books, self._feeds, record)
        task = asyncio.current_task()
        assert task is not None
        self._live[task] = turn
        try:
            async with asyncio.timeout(MAX_CALL_S):
                if refusal is not None:
                    raise refusal
                await self._answer(turn, form, body)
        except EngineError as refused:
            turn.refuse(refused.status)
            await exchange.respond_error(form.error(refused))
        except TimeoutError:
            turn.conclude("time_limit")
            await exchange.link.reset()
        except asyncio.CancelledError:
            if task not in self._lost:
                raise
            task.uncancel()
            exchange.link.abort()
        finally:
            del self._live[task]
            self._lost.discard(task)
            turn.conclude("stopped")
        self._afterwards(turn)

    def restart(self) -> int:
        """As if the process had died and come back: what is open is lost, and the counters begin anew.
        Answers how many calls were lost."""
        this = asyncio.current_task()
        lost = [(task, turn) for task, turn in self._live.items() if task is not this]
        for task, turn in lost:
            turn.conclude("stopped")
            self._lost.add(task)
            task.cancel()
        self._begin_anew(as_new_process=True)
        self._books.injections.add("restart", lost_calls=len(lost))
        return len(lost)

    def reset_counters(self) -> None:
        """The counters begin anew, and nothing else."""
        self._begin_anew(as_new_process=False)
        self._books.injections.add("counter_reset")

    def _begin_anew(self, *, as_new_process: bool) -> None:
        self._dialect.counters.begin_anew(self._dialect.make_counters(), as_new_process=as_new_process)

    def _afterwards(self, turn: Turn) -> None:
        """What the dice said of this call comes true, if it ended whole."""
        record = turn.record
        if turn.chance is None or record.ended not in WHOLE:
            return
        match turn.chance:
            case "wrong_usage":
                self._book_lie(record)
            case "foreign":
                prompt, cached, completion = draw_counts(self._dice.details)
                bypass(
                    self._dialect,
                    self._feeds,
                    self._books.injections,
                    prompt_tokens=prompt,
                    cached_tokens=cached,
                    completion_tokens=completion,
                )
            case "restart":
                self.restart()
            case "counter_reset":
                self.reset_counters()

    def _book_lie(self, record: RequestRecord) -> None:
        reported = record.reported_completion_tokens
        if reported is not None and reported != record.generated_tokens:
            self._books.injections.add(
                "wrong_usage",
                wire_id=record.wire_id,
                reported=reported,
                generated=record.generated_tokens,
            )

    async def _answer(self, turn: Turn, form: Format, body: bytes) -> None:
        self._dialect.check_served(form.endpoint)
        request = self._read(turn, form, body)
        directive = self._with_chance(turn, request, self._read_directive(request))
        turn.describe(request, directive)
        if directive.fault is not None and await turn.fail_before(directive.fault):
            return
        call = self._admit(turn, request, directive)
        if request.stream:
            await turn.stream(call)
        else:
            await turn.plain(call)

    def _read(self, turn: Turn, form: Format, body: bytes) -> EngineRequest:
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise self._dialect.invalid_json(body, str(wrong)) from wrong
        return self._dialect.read_request(form.endpoint, decoded, turn.exchange.headers)

    def _read_directive(self, request: EngineRequest) -> Directive:
        try:
            directive = parse_directive(request.prompt.directed_by)
        except DirectiveError as wrong:
            raise self._dialect.reject(400, f"sim: {wrong}", "sim_directive_error") from wrong
        if directive.fault is None and self._behaviour.fault is not None:
            return replace(directive, fault=self._behaviour.fault)
        return directive

    def _with_chance(self, turn: Turn, request: EngineRequest, directive: Directive) -> Directive:
        """One that is told to misbehave already is left alone by the dice."""
        turn.chance = self._dice.roll()
        if directive.fault is not None:
            turn.chance = None
        if turn.chance != "wrong_usage":
            return directive
        if request.endpoint == "embeddings":
            turn.chance = None
            return directive
        return replace(directive, fault=_lie(self._dice))

    def _admit(self, turn: Turn, request: EngineRequest, directive: Directive) -> Call:
        counts = request.prompt.counts
        first = counts[0] if directive.prompt is None else directive.prompt
        prompt_tokens = first + sum(counts[1:])
        cap = self._dialect.target_tokens(request, max(first, *counts[1:], 0))
        pieces = self._plan(request, directive)
        wanted = directive.tokens if pieces is None else len(pieces)
        target = 0 if request.endpoint == "embeddings" else min(cap, wanted)
        called = sum(piece.kind == "tool_name" for piece in pieces or ())
        rate = directive.rate_per_s
        call = Call(
            request=request,
            directive=directive,
            record=turn.record,
            wire_id=self._dialect.make_wire_id(request, turn.exchange.headers),
            model=self._dialect.response_model(request),
            created_unix=int(time.time()),
            prompt_tokens=prompt_tokens,
            cached_tokens=min(directive.cached, prompt_tokens),
            target_steps=target,
            reasoning_tokens=min(directive.reasoning, target),
            finish_reason=_finish_reason(request, pieces, wanted, cap, called),
            rate_per_s=self._machine.speeds.tokens_per_s if rate is None else rate,
            pieces=pieces,
            tool_ids=tuple(self._dialect.make_tool_id() for _ in range(called)),
        )
        turn.admit(call)
        return call

    def _plan(self, request: EngineRequest, directive: Directive) -> tuple[Piece, ...] | None:
        try:
            return plan(
                request.prompt, request.wish, calls=directive.tools, reasoning_tokens=directive.reasoning
            )
        except NoToolError as wrong:
            raise self._dialect.reject(400, f"sim: {wrong}", "sim_directive_error") from wrong


def _lie(dice: Dice[CallFault]) -> Fault:
    by = dice.details.randint(1, MAX_LIE_TOKENS) * dice.details.choice((-1, 1))
    return Fault("usage_lies", number=by, text=f"usage_lies:{by:+}")


def _finish_reason(
    request: EngineRequest, pieces: tuple[Piece, ...] | None, wanted: int, cap: int, called: int
) -> str:
    """Free text of just the cap's length counts as cut, a planned answer does not."""
    if request.endpoint == "embeddings":
        return "stop"
    is_cut = wanted >= cap if pieces is None else wanted > cap
    if is_cut:
        return "length"
    return "tool_calls" if called else "stop"
