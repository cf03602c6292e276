"""One choice of a call: attempts on one deployment after another, until one delivers."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal, Protocol
from uuid import UUID

from models_catalog.engines import EngineAdapter, UsageReport
from portal.inference import errors, measures
from portal.inference.attempt import AttemptRecord
from portal.inference.conduit import Conduit, Writer
from portal.inference.delivery import Delivery
from portal.inference.dialects.base import ModelRequest
from portal.inference.errors import CallError
from portal.inference.public_name import PublicName
from portal.inference.runtime import Runtime
from portal.inference.snapshot import Route
from portal.inference.stream_events import EventRun
from portal.inference.upstream_answers import UNREADABLE, PlainAnswer, refusal_of
from portal.inference.wire import Response, StaleConnection, TooLarge, Unreachable, WireError
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.sse import EventSplitter, EventTooLarge
from quotas.metering.facts import NOTHING, UsageFacts
from quotas.models import AttemptOutcome
from quotas.settlement import AttemptEnd

logger = logging.getLogger(__name__)

Stall = Literal["CLIENT_STALLED", "IDLE", "FIRST_BYTE"]

MAX_REFUSAL_BYTES = 65536
# After the end mark of a stream only the end of the body is awaited, and shortly: then the connection can
# serve again.
LINGER_S = 0.25


class Outlet(Protocol):
    """Where one choice goes: a stream that is begun and sent run by run, or a whole answer (`plain`).

    writer: what a stream that has begun may be written to at once, instead of being sent; None where each run
    is worked on before it leaves.
    """

    writer: Writer | None

    async def begin(self) -> None: ...

    async def send(self, events: list[bytes]) -> None:
        """Returns when the bytes have left for the client."""
        ...

    async def answer(self, choice: "ChoiceRun") -> None: ...


class TryElsewhere(Exception):
    """This attempt failed before its first byte; another one may serve the call."""

    def __init__(self, error: CallError) -> None:
        super().__init__(error.code)
        self.error = error


def _is_over() -> bool:
    return False


def _cut() -> AttemptOutcome:
    return AttemptOutcome.CUT


class ChoiceRun:
    """Runs once. `run` raises CallError when no backend delivered, or one broke off (has_started).

    include_usage: whether the backend's last event, which only reports usage, is passed on.
    hold_is_ours: asked before anything is delivered; when it says no, the call is being cancelled.
    outcome_if_cancelled: what an attempt is recorded as when its task is cancelled.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        request_id: UUID,
        request: ModelRequest,
        index: int,
        outlet: Outlet,
        include_usage: bool,
        hold_is_ours: Callable[[], bool],
        outcome_if_cancelled: Callable[[], AttemptOutcome],
    ) -> None:
        self.delivery = Delivery(request, index)
        self.attempts: list[AttemptEnd] = []
        self.has_started = False
        self.deployment_id: UUID | None = None
        self._runtime = runtime
        self._request_id = request_id
        self._request = request
        self._dialect = request.dialect
        self._name = PublicName(request.model, upstream_model="")
        self._index = index
        self._outlet = outlet
        self._include_usage = include_usage
        self.plain: PlainAnswer | None = None
        self._plain_engine: EngineAdapter | None = None
        self._hold_is_ours = hold_is_ours
        self._outcome_if_cancelled = outcome_if_cancelled
        self._is_over = False
        self._progress_s = time.monotonic()
        self._has_first_byte = False
        self._waits_for_client = False
        self._response: Response | None = None
        self._conduit: Conduit | None = None

    def forget_call(self) -> None:
        """The call is over. It refers to its choices: what they keep of it would leave both, and all that
        they hold, to the garbage collector."""
        self._hold_is_ours = _is_over
        self._outcome_if_cancelled = _cut

    def deliver_plain(self) -> None:
        """The whole answer is about to be sent in one piece."""
        if self.plain is not None and self._plain_engine is not None:
            self.has_started = True
            self.delivery.note_plain(self.plain, self._plain_engine)

    def facts_of_plain(self) -> UsageFacts:
        """What the whole answer will come to once it is delivered."""
        if self.plain is None or self._plain_engine is None:
            return NOTHING
        delivery = Delivery(self._request, self._index)
        delivery.note_plain(self.plain, self._plain_engine)
        return delivery.facts()

    def shown_plain(self) -> bytes:
        """The whole answer as the client gets it."""
        return self._name.in_answer(self.plain.body) if self.plain is not None else b""

    def due_s(self) -> float:
        """When somebody will have let this choice wait for too long, unless something happens before."""
        if self._is_over:
            return float("inf")
        config = self._runtime.config
        conduit, progress_s = self._conduit, self._progress_s
        if conduit is not None:
            progress_s = conduit.progress_s
        elif self._response is not None:
            progress_s = max(progress_s, self._response.received_at_s)
        return progress_s + (config.idle_timeout_s if self._has_first_byte else config.first_byte_timeout_s)

    def stalled(self, now_s: float) -> Stall | None:
        """Who lets this choice wait for too long, if anybody does."""
        if now_s <= self.due_s():
            return None
        if self._waits_for_client or (self._conduit is not None and self._conduit.waits_for_client):
            return "CLIENT_STALLED"
        return "IDLE" if self._has_first_byte else "FIRST_BYTE"

    async def run(self, routes: list[Route], first_attempt_id: UUID | None) -> None:
        """Try the routes in order. `first_attempt_id` names an attempt that is committed already."""
        try:
            await self._try_in_order(routes, first_attempt_id)
        finally:
            self._is_over = True

    async def _try_in_order(self, routes: list[Route], attempt_id: UUID | None) -> None:
        failure = errors.backend_unavailable()
        remaining = list(routes[: self._runtime.config.max_attempts])
        is_fresh = False
        while remaining:
            route = remaining.pop(0)
            if attempt_id is None:
                attempt_id = uuid7()
                if not await self._open_attempt(attempt_id, route):
                    raise failure
            try:
                await self._attempt(route, attempt_id, is_fresh=is_fresh)
                return
            except StaleConnection:
                # The backend closed an idle connection at the very moment that the call took it from the
                # pool. That says nothing about the backend, which gets another attempt on a fresh one.
                remaining.insert(0, route)
                is_fresh = True
            except TryElsewhere as elsewhere:
                failure = elsewhere.error
                is_fresh = False
            attempt_id = None
        raise failure

    async def _leave_if_stopped(self) -> None:
        """Raises CancelledError when the call was stopped. A cancellation can get lost on the way: Python
        3.11's wait_for, which the connection pool uses, drops one that comes together with the answer."""
        if not self._hold_is_ours():
            await asyncio.sleep(0)
            raise asyncio.CancelledError

    async def _open_attempt(self, attempt_id: UUID, route: Route) -> bool:
        """Commit a further attempt before it is sent; without its row nothing may be sent."""
        # Until it is known to be entered, whoever leaves in between must not leave it open.
        unsent = AttemptRecord(attempt_id)
        try:
            return await self._runtime.database.open_attempt(
                attempt_id=attempt_id,
                request_id=self._request_id,
                deployment_id=route.deployment_id,
                choice_index=self._index,
                ordinal=len(self.attempts) + 1,
            )
        except asyncio.CancelledError:
            unsent.outcome = self._outcome_if_cancelled()
            self.attempts.append(unsent.end(None))
            raise
        except Exception:
            logger.exception("inference.attempt.not_recorded", extra={"request": str(self._request_id)})
            return False

    async def _attempt(self, route: Route, attempt_id: UUID, *, is_fresh: bool) -> None:
        """One attempt, with its end recorded whatever happens.

        Raises StaleConnection, TryElsewhere, CallError.
        """
        routing = self._runtime.routing
        attempt = AttemptRecord(attempt_id)
        self._progress_s = time.monotonic()
        routing.entered(route, self._request)
        self.deployment_id = route.deployment_id
        try:
            await self._leave_if_stopped()
            await self._exchange(route, attempt, is_fresh=is_fresh)
        except asyncio.CancelledError:
            attempt.outcome = self._outcome_if_cancelled()
            raise
        finally:
            report = self._report()
            routing.left(
                route,
                attempt.outcome,
                attempt.ttft_s,
                attempt.elapsed_s,
                # An absurd count must not spoil what is expected of other calls.
                _within(report.completion_tokens, self._request.output_cap_tokens) if report else None,
            )
            measures.attempts(route.backend_code, attempt.outcome.value).inc()
            self.attempts.append(attempt.end(report))

    def _report(self) -> UsageReport | None:
        if self.plain is not None and self._plain_engine is not None and not self.delivery.is_complete:
            return self._dialect.read_usage(self.plain.body, engine=self._plain_engine)
        return self.delivery.report()

    async def _exchange(self, route: Route, attempt: AttemptRecord, *, is_fresh: bool) -> None:
        upstream_call = self._request.upstream_call(
            engine=route.engine,
            attempt_id=public_id(PREFIXES["attempt"], attempt.id),
            upstream_model=route.upstream_model,
            output_cap_tokens=self._request.output_cap_tokens,
            index=self._index,
        )
        self._name = PublicName(self._request.model, upstream_model=route.upstream_model)
        try:
            response = await self._runtime.upstreams.send(route, upstream_call, is_fresh=is_fresh)
        except StaleConnection:
            attempt.outcome = AttemptOutcome.STALE
            raise
        except Unreachable as error:
            attempt.outcome = AttemptOutcome.UNREACHABLE
            raise TryElsewhere(errors.backend_failed("The model's backend could not be reached.")) from error
        except WireError as error:
            attempt.outcome = AttemptOutcome.BACKEND_FAILED
            raise TryElsewhere(errors.backend_failed()) from error
        self._response = response
        try:
            attempt.http_status = response.status
            if response.status != 200:
                await self._refused(response, attempt)
            elif self._request.stream:
                await self._pass_stream(response, route, attempt)
            else:
                await self._pass_answer(response, route, attempt)
        finally:
            self._response = self._conduit = None
            # Releasing what is not read to its end aborts the backend; a finished answer has nothing left.
            response.release(linger_s=LINGER_S if self.delivery.is_complete else 0.0)

    async def _refused(self, response: Response, attempt: AttemptRecord) -> None:
        try:
            body = await response.read(max_bytes=MAX_REFUSAL_BYTES)
        except WireError:
            body = b""
        error, elsewhere = refusal_of(response.status, body, self._dialect.endpoint)
        error.message = self._name.in_text(error.message)
        attempt.outcome = AttemptOutcome.BACKEND_FAILED if elsewhere else AttemptOutcome.BACKEND_REFUSED
        if elsewhere:
            raise TryElsewhere(error)
        raise error

    async def _pass_answer(self, response: Response, route: Route, attempt: AttemptRecord) -> None:
        attempt.outcome = AttemptOutcome.BACKEND_FAILED
        self._has_first_byte = True
        try:
            answer = self._dialect.read_plain(
                await response.read(max_bytes=self._runtime.config.max_answer_bytes)
            )
        except TooLarge as error:
            raise TryElsewhere(errors.backend_failed("The backend's answer was too large.")) from error
        except (WireError, *UNREADABLE) as error:
            raise TryElsewhere(errors.backend_failed()) from error
        attempt.first_byte(route)
        attempt.wire_id = answer.wire_id
        await self._leave_if_stopped()
        self.plain, self._plain_engine = answer, route.engine
        await self._outlet.answer(self)
        attempt.outcome = AttemptOutcome.COMPLETED

    async def _pass_stream(self, response: Response, route: Route, attempt: AttemptRecord) -> None:
        """Pass the events on as they come; raises TryElsewhere while nothing has been sent."""
        attempt.outcome = AttemptOutcome.BACKEND_FAILED
        if not response.content_type.startswith(b"text/event-stream"):
            raise TryElsewhere(errors.backend_failed("The model's backend answered with something else."))
        splitter = EventSplitter(self._runtime.config.max_event_bytes)
        run = EventRun()
        try:
            while not (run.is_done or run.has_failed):
                if self.has_started and self._outlet.writer is not None:
                    run = await self._pass_on(response, self._outlet.writer, splitter, route)
                    break
                if not (data := await response.next()):
                    break
                run = await self._pass_events(splitter.feed(data), route, attempt)
            self.delivery.is_complete = run.is_done
        except EventTooLarge as error:
            run = await self._pass_events(error.events, route, attempt)
        except WireError as error:
            if not self.has_started:
                raise TryElsewhere(errors.backend_failed()) from error
        report = self.delivery.report()
        if not run.has_failed and (run.is_done or (report is not None and report.is_final)):
            self.delivery.is_complete = True
            attempt.outcome = AttemptOutcome.COMPLETED
            return
        if not self.has_started:
            raise TryElsewhere(errors.backend_failed("The model's backend sent no answer."))
        raise errors.backend_failed("The backend broke off the answer.")

    async def _pass_on(
        self, response: Response, writer: Writer, splitter: EventSplitter, route: Route
    ) -> EventRun:
        """The rest of a stream that has begun; its last run. Raises WireError."""
        dialect, engine, name, include_usage = self._dialect, route.engine, self._name, self._include_usage
        self._conduit = Conduit(
            response,
            writer,
            splitter=splitter,
            read=lambda events: dialect.read_run(
                events, engine=engine, include_usage=include_usage, name=name
            ),
            note=lambda run: self.delivery.note_run(run, engine),
            may_deliver=self._hold_is_ours,
        )
        return await self._conduit.passed()

    async def _pass_events(self, events: list[bytes], route: Route, attempt: AttemptRecord) -> EventRun:
        """Send a run of events and note what they delivered."""
        self._progress_s = time.monotonic()
        # Nothing may be delivered on credit.
        await self._leave_if_stopped()
        if not self.has_started:
            events = await self._begin_stream(events, route, attempt)
        run = self._dialect.read_run(
            events, engine=route.engine, include_usage=self._include_usage, name=self._name
        )
        if run.outgoing:
            await self._send(run.outgoing)
        # Only now is it delivered, and only what is delivered is ever billed.
        self.delivery.note_run(run, route.engine)
        return run

    async def _begin_stream(self, events: list[bytes], route: Route, attempt: AttemptRecord) -> list[bytes]:
        """Begin the answer with the first event that is a part of one; the events from there on.

        Raises TryElsewhere when the first event with data is something else.
        """
        for number, event in enumerate(events):
            try:
                wire_id = self._dialect.read_opening(event)
            except UNREADABLE as error:
                raise TryElsewhere(errors.backend_failed()) from error
            if wire_id is None:
                continue
            self._has_first_byte = True
            attempt.first_byte(route)
            attempt.wire_id = wire_id
            await self._outlet.begin()
            self.has_started = True
            return events[number:]
        return []

    async def _send(self, events: list[bytes]) -> None:
        """Returns when the bytes have left; whoever looks at the clock meanwhile sees who is waited for."""
        self._waits_for_client = True
        await self._outlet.send(events)
        self._waits_for_client = False
        self._progress_s = time.monotonic()


def _within(tokens: int, cap_tokens: int) -> int:
    return min(max(tokens, 0), cap_tokens)
