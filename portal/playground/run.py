"""One run of the playground: the same call that /v1 makes, with its meter and its receipt."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from portal.inference import errors
from portal.inference.call import ModelCall
from portal.inference.credentials import Credential
from portal.inference.dialects import CHAT, ModelRequest
from portal.inference.errors import CallError
from portal.inference.runtime import Runtime
from portal.inference.snapshot import ModelEntry
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import format_nanos
from portal.pages.access import Organization
from portal.playground import wording
from portal.playground.messages import Done, Meter, Outgoing, Queued, Run
from portal.playground.receipts import Receipt, Receipts, Tariff
from portal.playground.sink import SocketSink

logger = logging.getLogger(__name__)

ENDPOINT = "playground"
# The meter's pace: five readings a second are more than an eye follows.
METER_S = 0.2


class PlaygroundRun:
    """Runs once. `stop` may be called at any time; what was delivered until then is billed and told."""

    def __init__(
        self,
        runtime: Runtime,
        receipts: Receipts,
        *,
        run: Run,
        organization: Organization,
        credential: Credential,
        emit: Callable[[Outgoing], Awaitable[None]],
    ) -> None:
        self.request_id = uuid7()
        self.public_id = public_id(PREFIXES["request"], self.request_id)
        self.is_stopped = False
        self.is_abandoned = False
        self._runtime = runtime
        self._receipts = receipts
        self._run = run
        self._organization = organization
        self._credential = credential
        self._emit = emit
        self._call: ModelCall | None = None
        self._running: asyncio.Task[None] | None = None
        self._started_s = time.monotonic()
        self._tariff: Tariff | None = None
        self._sink = SocketSink(
            run.id, self.public_id, emit=emit, must_stop=lambda: self.is_stopped, on_gone=self.stop
        )

    @property
    def was_stalled(self) -> bool:
        """Whether the browser was cut because it took nothing."""
        return self._call is not None and self._call.stop_reason == "CLIENT_STALLED"

    def stop(self) -> None:
        """End the call at once: the backend stops, and what was delivered is billed."""
        self.is_stopped = True
        if self._call is not None:
            self._call.stop("CLIENT_GONE")
            if self._call.stop_reason is None and self._running is not None:
                # Not admitted yet: an admission that comes through all the same is voided.
                self._running.cancel()

    def abandon(self) -> None:
        """The same when nobody is left to be told of it."""
        self.is_abandoned = True
        self.stop()

    async def serve(self) -> None:
        """Runs the call and sends everything about it, up to its receipt. Raises OSError when the browser
        is gone; the call has ended and its settlement is on its way then."""
        await self._emit(Queued(self._run.id, self.public_id))
        meter = asyncio.create_task(self._show_meter())
        try:
            refusal = await self._deliver()
        finally:
            meter.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await meter
        if self.is_abandoned:
            return
        if refusal is not None:
            await self._emit(self._told(refusal))
            return
        if self._sink.failure is not None:
            await self._emit(
                wording.stream_error(
                    self._sink.failure,
                    run_number=self._run.id,
                    organization=self._organization,
                    request_id=self.public_id,
                )
            )
        ended_s = time.monotonic()
        receipt = await self._receipts.settled(self._credential, self.request_id)
        await self._emit(self._done(receipt, ended_s))

    async def _deliver(self) -> CallError | None:
        """The refusal or failure of a call of which nothing was delivered."""
        try:
            entry, request = await self._read()
        except CallError as error:
            return error
        if self.is_stopped:
            return None
        self._call = ModelCall(
            self._runtime,
            request_id=self.request_id,
            credential=self._credential,
            entry=entry,
            request=request,
            endpoint=ENDPOINT,
            sink=self._sink,
        )
        self._running = asyncio.create_task(self._call.run())
        try:
            await self._running
        except CallError as error:
            return None if self.is_stopped else error
        except asyncio.CancelledError:
            if not self.is_stopped:
                # It was not the call that was cancelled but whoever waits for it.
                self.stop()
                raise
        return None

    async def _read(self) -> tuple[ModelEntry, ModelRequest]:
        """The model and the validated request, as the gateway reads them. Raises CallError."""
        entry = await self._runtime.catalog.find(self._run.model)
        if not self._runtime.catalog.is_loaded:
            # Nothing is known of any model before the database has answered once.
            raise errors.overloaded()
        if entry is None:
            raise errors.unknown_model(self._run.model)
        if not entry.routes:
            raise errors.backend_unavailable()
        body = self._run.body()
        engines = {route.engine.name: route.engine for route in entry.routes}.values()
        request = CHAT.read_request(body, raw=msgspec.json.encode(body), entry=entry, engines=engines)
        return entry, request

    async def _show_meter(self) -> None:
        """Sends the running counts while they change."""
        shown: tuple[int, int] | None = None
        while True:
            await asyncio.sleep(METER_S)
            if self._call is None or self._sink.ttft_ms is None:
                continue
            counts = self._call.checkpoint()
            reading = (counts.prompt_tokens, counts.completion_tokens)
            if reading == shown or not any(reading):
                continue
            if self._tariff is None:
                self._tariff = await self._receipts.tariff(
                    self._credential, self.request_id, prompt_tokens=counts.prompt_tokens
                )
            shown = reading
            await self._emit(
                Meter(
                    self._run.id,
                    *reading,
                    self._tariff.cost_nanos(counts) if self._tariff else None,
                    self._organization.currency,
                    self._sink.has_counts,
                )
            )

    def _told(self, error: CallError) -> Outgoing:
        return wording.call_error(
            error, run_number=self._run.id, organization=self._organization, request_id=self.public_id
        )

    def _done(self, receipt: Receipt | None, ended_s: float) -> Done:
        """receipt: None for a run that was stopped before it was admitted, which costs nothing."""
        sink, currency = self._sink, self._organization.currency
        is_settled = receipt.is_settled if receipt else True
        completion = receipt.completion_tokens if receipt else 0
        if receipt is not None and not is_settled and self._call is not None:
            completion = self._call.checkpoint().completion_tokens
        charged_nanos = (receipt.charged_nanos if receipt else 0) if is_settled else None
        streamed_s = ended_s - sink.first_token_s if sink.first_token_s is not None else 0.0
        return Done(
            id=self._run.id,
            request_id=self.public_id,
            finish_reason=self._finish_reason(),
            prompt_tokens=receipt.prompt_tokens if receipt else 0,
            cached_tokens=receipt.cached_tokens if receipt else 0,
            completion_tokens=completion,
            reasoning_tokens=receipt.reasoning_tokens if receipt else 0,
            cost_nanos=charged_nanos,
            cost=format_nanos(charged_nanos, currency) if charged_nanos is not None else "",
            currency=currency,
            provenance=receipt.provenance if receipt else "",
            settled=is_settled,
            ttft_ms=sink.ttft_ms,
            duration_ms=int((ended_s - self._started_s) * 1000),
            tokens_per_s=round(completion / streamed_s, 1) if completion and streamed_s > 0 else None,
            receipt_url=wording.receipt_url(self._organization, self.public_id) if receipt else "",
        )

    def _finish_reason(self) -> str:
        if self._sink.failure is not None:
            return "error"
        if self.is_stopped and not self._sink.finish_reason:
            return "stopped"
        return self._sink.finish_reason or "stop"
