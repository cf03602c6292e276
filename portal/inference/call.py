"""One model call, from admission to settlement. The gateway and the playground use the same."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal
from uuid import UUID

from models_catalog.models import ServiceTier
from portal.inference import errors
from portal.inference.choice import ChoiceRun, Outlet
from portal.inference.costs import NO_OPTIONS, CostOptions, cost_members, cost_of, with_cost
from portal.inference.credentials import Credential
from portal.inference.delivery import together
from portal.inference.dialects.base import ModelRequest
from portal.inference.errors import CallError
from portal.inference.floor_meter import FloorMeter
from portal.inference.outlets import DirectOutlet, MergedOutlet, MergedStream, Sink, merged_answer
from portal.inference.runtime import Runtime
from portal.inference.snapshot import ModelEntry, Route
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.admission import AdmissionRow, Verdict
from quotas.metering.facts import NOTHING, UsageFacts
from quotas.models import AttemptOutcome, HoldState
from quotas.settlement import AttemptEnd, CheckpointRow, settlement_row

logger = logging.getLogger(__name__)

StopReason = Literal[
    "CLIENT_GONE", "CLIENT_STALLED", "LEASE_LOST", "DRAIN", "SUSPENDED", "IDLE", "FIRST_BYTE", "TOTAL"
]

_OUTCOMES: dict[StopReason, AttemptOutcome] = {
    "CLIENT_GONE": AttemptOutcome.CLIENT_GONE,
    "CLIENT_STALLED": AttemptOutcome.CLIENT_GONE,
    "LEASE_LOST": AttemptOutcome.CUT,
    "DRAIN": AttemptOutcome.CUT,
    "SUSPENDED": AttemptOutcome.CUT,
    "IDLE": AttemptOutcome.BACKEND_TIMEOUT,
    "FIRST_BYTE": AttemptOutcome.BACKEND_TIMEOUT,
    "TOTAL": AttemptOutcome.CUT,
}

# The last words to a client that may not be reading any more.
FAREWELL_S = 2.0
STOP_AGAIN_S = 5.0


class ModelCall:
    """Runs once. `run` raises CallError only when nothing has been sent to the sink."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        request_id: UUID,
        credential: Credential,
        entry: ModelEntry,
        request: ModelRequest,
        sink: Sink,
        endpoint: str | None = None,
        costs: CostOptions = NO_OPTIONS,
    ) -> None:
        """endpoint: what the call is recorded as, when not as the request's own."""
        self.request_id = request_id
        self.public_id = public_id(PREFIXES["request"], request_id)
        self.tenant_id = credential.tenant_id
        self.stop_reason: StopReason | None = None
        self.lease_until_s = 0.0
        self.wants_lease = False
        self._runtime = runtime
        self._credential = credential
        self._entry = entry
        self._request = request
        self._endpoint = endpoint or request.dialect.endpoint.value
        self._sink = sink
        self._costs = costs
        self._task: asyncio.Task[object] | None = None
        self._started_s = time.monotonic()
        self._stopped_s = 0.0
        # Before then `watch` would find nothing.
        self._quiet_until_s = 0.0
        # Engines count and name several choices differently, so each is served as a call of one. The end of
        # a merged answer is ours, so one that says its cost is merged of however many there are.
        is_merged = request.choices > 1 or costs.includes_cost
        self._merged = MergedStream(sink, model=request.model) if is_merged else None
        # Made once it is admitted, which settles their cap.
        self._choices: list[ChoiceRun] = []
        # What the floor's meter has counted of each.
        self._metered = [NOTHING] * request.choices

    def _choice(self, index: int) -> ChoiceRun:
        outlet: Outlet = MergedOutlet(self._merged, index) if self._merged else DirectOutlet(self._sink)
        return ChoiceRun(
            self._runtime,
            request_id=self.request_id,
            request=self._request,
            index=index,
            outlet=outlet,
            include_usage=self._request.include_usage and self._merged is None,
            hold_is_ours=self._hold_is_ours,
            outcome_if_cancelled=lambda: (
                _OUTCOMES[self.stop_reason] if self.stop_reason else AttemptOutcome.CUT
            ),
        )

    def _hold_is_ours(self) -> bool:
        """False once the lease is over, as after a standstill of the process: what has piled up since then
        must not be delivered, and the clock that watches the calls may come too late for that."""
        if time.monotonic() > self.lease_until_s:
            self.stop("LEASE_LOST")
        return self.stop_reason is None

    # From outside.

    def stop(self, reason: StopReason) -> None:
        """End the call wherever it is. What was delivered is billed; the first reason counts."""
        if self.stop_reason is None and self._task is not None:
            self.stop_reason = reason
            self._stopped_s = time.monotonic()
            self._task.cancel()

    def watch(self, now_s: float) -> None:
        """Called a few times a second: stops a call that is over its time or about to lose its lease."""
        if now_s < self._quiet_until_s and self.stop_reason is None:
            return
        config = self._runtime.config
        if self.stop_reason is not None:
            # A cancellation can get lost; nothing that was stopped may live on and renew its lease.
            if self._task is not None and now_s - self._stopped_s > STOP_AGAIN_S:
                self._stopped_s = now_s
                self._task.cancel()
        elif now_s > self.lease_until_s - config.checkpoint_s and self.wants_lease:
            self.stop("LEASE_LOST")
        elif now_s - self._started_s > config.call_timeout_s:
            self.stop("TOTAL")
        else:
            for choice in self._choices:
                reason = choice.stalled(now_s)
                if reason is not None:
                    self.stop(reason)
                    return
            # What moves these moments moves them later; but after the first byte patience is another.
            self._quiet_until_s = min(
                self.lease_until_s - config.checkpoint_s,
                self._started_s + config.call_timeout_s,
                now_s + config.idle_timeout_s,
                *[choice.due_s() for choice in self._choices],
            )

    def checkpoint(self) -> CheckpointRow:
        facts = self._facts()
        return CheckpointRow(
            request_id=self.request_id,
            prompt_tokens=facts.prompt_tokens,
            cached_tokens=facts.cached_tokens,
            completion_tokens=facts.completion_tokens,
            reasoning_tokens=facts.reasoning_tokens,
        )

    def meter(self, floor: FloorMeter) -> None:
        """Count what was delivered since the last time, and the call itself as being in progress."""
        self._meter(floor, self._parts())
        if self._choices[0].deployment_id is not None:
            floor.add_live(self._choices[0].deployment_id)

    def _meter(self, floor: FloorMeter, parts: list[UsageFacts]) -> None:
        for index, choice in enumerate(self._choices):
            part = parts[index]
            if choice.deployment_id is not None and part is not self._metered[index]:
                if not self._request.is_first_of_prompt(index):
                    # A prompt counts once, as it is charged once.
                    part = replace(part, prompt_tokens=0, cached_tokens=0)
                floor.add(choice.deployment_id, part, before=self._metered[index])
                self._metered[index] = part

    def _parts(self) -> list[UsageFacts]:
        return [choice.delivery.facts() for choice in self._choices]

    def _facts(self) -> UsageFacts:
        return together(self._parts(), self._request)

    # The call.

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            for choice in self._choices:
                choice.forget_call()

    async def _run(self) -> None:
        runtime = self._runtime
        if runtime.is_draining:
            raise errors.overloaded("The service is restarting. Try again.")
        if len(runtime.live) >= runtime.config.max_calls:
            raise errors.overloaded()
        routes = runtime.routing.order(self._entry.routes, self._request)
        if not routes:
            raise errors.backend_unavailable()
        attempt_id = uuid7()
        # Calls that are ordered until this one is sent, or refused, are to see it.
        lane = runtime.routing.expect(routes[0])
        try:
            ticket = await runtime.rates.enter(
                request_id=self.request_id,
                credential=self._credential,
                entry=self._entry,
                request=self._request,
                tell=self._sink.add_headers,
            )
            asked_at_s = time.monotonic()
            try:
                await self._admit(routes[0], attempt_id)
            except BaseException:
                if ticket is not None:
                    runtime.rates.withdraw(ticket)
                raise
        finally:
            runtime.routing.admitted(lane)
        self._task = asyncio.current_task()
        self.lease_until_s = asked_at_s + runtime.config.lease_s
        self.wants_lease = True
        runtime.live[self.request_id] = self
        try:
            await self._serve(routes, attempt_id)
        finally:
            self.wants_lease = False
            # Whoever asked about this call meanwhile may stop it too late, and hit what its task does next.
            self._task = None
            runtime.live.pop(self.request_id, None)
            parts = self._parts()
            facts = together(parts, self._request)
            if ticket is not None:
                runtime.rates.leave(ticket, used_tokens=facts.prompt_tokens + facts.completion_tokens)
            runtime.settle(
                settlement_row(
                    request_id=self.request_id,
                    tenant_id=self.tenant_id,
                    facts=facts,
                    attempts=self._ends(attempt_id),
                )
            )
            self._meter(runtime.floor, parts)

    async def _admit(self, route: Route, attempt_id: UUID) -> None:
        """Raises CallError when the call is not admitted."""
        answer = await self._runtime.admit(self._admission_row(route, attempt_id))
        if answer.verdict is Verdict.REFUSED:
            raise errors.refusal(
                answer, slug=self._entry.slug, output_cap_tokens=self._request.output_cap_tokens
            )
        if answer.verdict is Verdict.CONFLICT or (
            answer.verdict is Verdict.ALREADY_DONE and answer.reason != HoldState.PENDING
        ):
            # Another call has this id, or its own hold was resolved before the answer got here.
            raise errors.overloaded("The call could not be recorded.")
        cap_tokens = answer.output_cap_tokens
        if cap_tokens is not None and cap_tokens < self._request.output_cap_tokens:
            # What the caller's ceiling leaves; nothing of the call has begun yet.
            self._request = replace(self._request, output_cap_tokens=cap_tokens)
        self._choices = [self._choice(index) for index in range(self._request.choices)]

    def _ends(self, first_attempt_id: UUID) -> list[AttemptEnd]:
        """How the attempts ended; the first one also when its choice was stopped before it began."""
        ends = [end for choice in self._choices for end in choice.attempts]
        if all(end.id != first_attempt_id for end in ends):
            outcome = _OUTCOMES[self.stop_reason] if self.stop_reason else AttemptOutcome.CUT
            ends.insert(0, AttemptEnd(id=first_attempt_id, outcome=outcome.value))
        return ends

    def _admission_row(self, route: Route, attempt_id: UUID) -> AdmissionRow:
        request = self._request
        return AdmissionRow(
            request_id=self.request_id,
            attempt_id=attempt_id,
            tenant_id=self.tenant_id,
            api_key_id=self._credential.api_key_id,
            digest=self._credential.digest,
            model_id=self._entry.id,
            deployment_id=route.deployment_id,
            service_tier=ServiceTier.STANDARD.value,
            endpoint=self._endpoint,
            is_stream=request.stream,
            choices=request.choices,
            prompt_bound_tokens=request.prompt_bound_tokens,
            output_cap_tokens=request.output_cap_tokens,
            payload_sha256=request.payload_sha256,
            max_cost_nanos=self._costs.max_cost_nanos,
        )

    async def _serve(self, routes: list[Route], attempt_id: UUID) -> None:
        """Deliver, or say why not: as an error while nothing has been sent, as an event afterwards."""
        try:
            if self._merged is None:
                await self._choices[0].run(routes, attempt_id)
            else:
                await self._serve_merged(self._merged, routes, attempt_id)
        except asyncio.CancelledError:
            if self.stop_reason is None or self._task is None:
                raise
            self._task.uncancel()
            await self._end(self._error_of(self.stop_reason))
        except CallError as error:
            await self._end(error)

    async def _serve_merged(self, merged: MergedStream, routes: list[Route], attempt_id: UUID) -> None:
        """All choices at a time; when one fails, the others end with it. The first one's attempt is on record
        already, and so is where it goes."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, choice in enumerate(self._choices):
                    if number:
                        routes = self._runtime.routing.order(self._entry.routes, self._request)
                    group.create_task(choice.run(routes, None if number else attempt_id))
        except* CallError as failures:
            raise _first(failures) from None
        if self._request.stream:
            facts = self._facts()
            told = await self._told_cost(facts)
            is_wanted = self._request.include_usage or self._costs.includes_cost
            await merged.finish(facts if is_wanted else None, told)
            return
        # Nothing is delivered, and so nothing billed, until it is sent.
        facts = together([choice.facts_of_plain() for choice in self._choices], self._request)
        told = await self._told_cost(facts)
        for choice in self._choices:
            choice.deliver_plain()
        if len(self._choices) > 1:
            body = merged_answer(self._choices, facts, model=self._request.model)
        else:
            body = self._choices[0].shown_plain()
        await self._sink.answer(with_cost(body, told) if told else body, content_type=b"application/json")

    async def _told_cost(self, facts: UsageFacts) -> Mapping[str, str | None]:
        """The members of the usage that say what the call costs, where that was asked for."""
        if not self._costs.includes_cost:
            return {}
        return cost_members(
            await cost_of(
                self._runtime.database, request_id=self.request_id, tenant_id=self.tenant_id, facts=facts
            )
        )

    def _error_of(self, reason: StopReason) -> CallError | None:
        if reason in ("CLIENT_GONE", "CLIENT_STALLED"):
            return None
        if reason in ("IDLE", "FIRST_BYTE"):
            return errors.backend_timeout()
        if reason == "SUSPENDED":
            return errors.suspended()
        if reason == "TOTAL":
            return CallError(504, "call_timeout", "The call took longer than calls may take.", type="timeout")
        return errors.overloaded("The call was ended by the service. What was delivered is billed.")

    async def _end(self, error: CallError | None) -> None:
        if error is None:
            return
        if not any(choice.has_started for choice in self._choices):
            raise error
        if self._request.stream:
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await self._sink.send(self._request.dialect.error_event(error, self.public_id))
            except TimeoutError:
                logger.info("inference.call.client_too_slow", extra={"request": self.public_id})


def _first(failures: BaseExceptionGroup[CallError]) -> CallError:
    for failure in failures.exceptions:
        if isinstance(failure, CallError):
            return failure
        if isinstance(failure, BaseExceptionGroup):
            return _first(failure)
    return errors.backend_failed()
