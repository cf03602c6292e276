"""What the calls of one process share: database, batches, catalog, backends, and the clock that watches
every running call."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from portal.inference import measures
from portal.inference.config import InferenceConfig
from portal.inference.credentials import Authenticator
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time, is_transient
from portal.inference.ending import end_all
from portal.inference.errors import overloaded
from portal.inference.fleet import Fleet
from portal.inference.floor_meter import FloorMeter, seconds_until_written
from portal.inference.limits import RateGate
from portal.inference.snapshot import POLL_S, CatalogSnapshot
from portal.inference.upstream import Upstreams
from portal.kit import valkey
from portal.kit.batching import Closed, DeadlineExceeded, Flights, GroupCommit, QueueFull
from quotas.admission import AdmissionAnswer, AdmissionRow, Verdict
from quotas.limits.script_line import ANSWER_TIMEOUT_S
from quotas.metering.facts import NOTHING
from quotas.models import AttemptOutcome
from quotas.settlement import AttemptEnd, CheckpointRow, SettlementAnswer, SettlementRow, settlement_row

if TYPE_CHECKING:
    from portal.inference.call import ModelCall

logger = logging.getLogger(__name__)

TICK_S = 0.4
# Calls of a suspended organization end within a second, the question and the way to the client included.
SUSPENSION_POLL_S = 0.75
CHECKPOINT_CHUNK = 500
# After so many calls whoever looks at all of them lets others have a turn: chunks must not wait for it.
TURN_CALLS = 50
# A checkpoint is taken a little earlier than promised, so that its commit is in time as well.
CHECKPOINT_MARGIN = 0.75
SETTLEMENT_DEADLINE_S = 120.0
# A flush holds a connection. Both group commits together take four at most, so that checkpoints and look-ups
# of keys find one even in the smallest pool. One flusher each: what a second one would take in the meantime
# is better added to the next batch, because most of what a statement costs it costs once.
FLUSHERS = 1
MAX_LANES = 1
MAX_BATCH = 400
# While the database is away: with the time that getting a connection may take, within a second.
ADMISSION_PATIENCE_S = 0.3
# Under load only. Nobody waits for a settlement, and fewer of them leave the wallets to admissions.
ADMISSION_GATHER_S = 0.004
SETTLEMENT_GATHER_S = 0.02


class Runtime:
    """Open it once per process and event loop; close it after the last call has ended."""

    def __init__(self, config: InferenceConfig) -> None:
        self.config = config
        self.database = Database(config)
        self._valkey = valkey.connect(config.valkey_url, timeout_s=ANSWER_TIMEOUT_S)
        self.rates = RateGate(
            self.database, self._valkey, lease_s=config.lease_s, default_rpm=config.rate_limit_rpm
        )
        self.floor = FloorMeter(self._valkey)
        self.catalog = CatalogSnapshot(
            self.database, config.secrets, on_limits=self.rates.cache.note_revision
        )
        self.authenticator = Authenticator(self.database, config.secrets)
        self.upstreams = Upstreams(config)
        self.fleet = Fleet(
            self.catalog,
            self._valkey,
            health_s=config.health_s,
            affinity_percent=config.affinity_percent,
        )
        self.routing = self.fleet.routing
        self.live: dict[UUID, ModelCall] = {}
        self.is_draining = False
        self._loops: list[asyncio.Task[None]] = []
        # Both lock wallets; an admission of a tenant that is being settled would only find it locked.
        flights = Flights()
        self._admissions: GroupCommit[AdmissionRow, AdmissionAnswer] = GroupCommit(
            "admission",
            flush=self.database.admit,
            lane_flush=self.database.admit_lane,
            lane_of=lambda row: row.tenant_id,
            key_of=lambda row: row.request_id,
            is_transient=is_transient,
            on_orphan=self._void_orphan,
            max_batch=MAX_BATCH,
            flushers=FLUSHERS,
            max_lanes=MAX_LANES,
            flush_timeout_s=10.0,
            patience_s=ADMISSION_PATIENCE_S,
            gather_s=ADMISSION_GATHER_S,
            flights=flights,
        )
        self._settlements: GroupCommit[SettlementRow, SettlementAnswer] = GroupCommit(
            "settlement",
            flush=self.database.settle,
            lane_flush=self.database.settle_lane,
            lane_of=lambda row: row.tenant_id,
            key_of=lambda row: row.request_id,
            is_transient=is_transient,
            max_batch=MAX_BATCH,
            max_queue=50_000,
            flushers=FLUSHERS,
            max_lanes=MAX_LANES,
            flush_timeout_s=10.0,
            gather_s=SETTLEMENT_GATHER_S,
            flights=flights,
        )
        self._admissions.observe = measures.observe_batch("admission")
        self._settlements.observe = measures.observe_batch("settlement")

    async def open(self) -> None:
        # Asked for at a scrape: counting at every call costs more.
        measures.LIVE_CALLS.set_function(lambda: len(self.live))
        await self.database.open()
        await self.catalog.refresh()
        logger.info(
            "inference.opened",
            extra={"lease_s": self.config.lease_s, "checkpoint_s": self.config.checkpoint_s},
        )
        rounds: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (TICK_S, self._watch_calls),
            (self.config.checkpoint_s * CHECKPOINT_MARGIN, self._checkpoint_calls),
            (self.config.checkpoint_s * CHECKPOINT_MARGIN, self.rates.renew),
            (SUSPENSION_POLL_S, self._cut_suspended),
            (POLL_S, self.catalog.refresh),
            (0.0, self._meter_second),
            *self.fleet.rounds,
        ]
        self._loops = [asyncio.create_task(self._every(*each)) for each in rounds]

    async def close(self) -> None:
        """Flush what is queued and close everything. Calls still running are cut first."""
        self.is_draining = True
        for call in list(self.live.values()):
            call.stop("DRAIN")
        for _ in range(50):
            if not self.live:
                break
            await asyncio.sleep(0.1)
        await self._admissions.close(5.0)
        await self._settlements.close(10.0)
        await end_all(self._loops)
        await self.rates.close()
        await self.fleet.close()
        self.upstreams.close()
        await self._valkey.aclose()
        await self.database.close()

    def begin_drain(self) -> None:
        """Take no new calls; running ones get `drain_s` seconds, then end with an error event."""
        if not self.is_draining:
            self.is_draining = True
            logger.info("inference.drain.begun", extra={"calls": len(self.live)})
            asyncio.get_running_loop().call_later(self.config.drain_s, self._cut_all)

    def _cut_all(self) -> None:
        for call in list(self.live.values()):
            call.stop("DRAIN")

    # The two doors of quotas.

    async def admit(self, row: AdmissionRow) -> AdmissionAnswer:
        """Raises CallError 503 when there is no room or no answer in time."""
        try:
            answer = await self._admissions.submit(row, self.config.admission_deadline_s)
        except (QueueFull, Closed, DeadlineExceeded) as error:
            measures.admissions("UNAVAILABLE").inc()
            raise overloaded("The call could not be recorded in time, so it was not served.") from error
        except psycopg.Error as error:
            measures.admissions("FAILED").inc()
            logger.exception("inference.admission.failed")
            raise overloaded("The call could not be recorded, so it was not served.") from error
        measures.admissions(answer.reason or answer.verdict.value).inc()
        return answer

    def settle(self, row: SettlementRow) -> None:
        """Settle in the background: the answer has been delivered, the hold is durable either way."""
        try:
            settling = self._settlements.send(row, SETTLEMENT_DEADLINE_S)
        except (QueueFull, Closed) as error:
            self._note_unsettled(row, error)
            return
        settling.add_done_callback(partial(self._note_settled, row))

    def _note_unsettled(self, row: SettlementRow, error: BaseException) -> None:
        """The hold stays, and the sweeper settles it to its last checkpoint."""
        measures.settlements("FAILED").inc()
        logger.error("inference.settlement.failed", extra={"request": str(row.request_id)}, exc_info=error)

    def _note_settled(self, row: SettlementRow, settling: "asyncio.Future[SettlementAnswer]") -> None:
        error = settling.exception()
        if error is not None:
            self._note_unsettled(row, error)
            return
        answer = settling.result()
        measures.settlements(answer.verdict.value).inc()
        if answer.overrun_nanos:
            measures.OVERRUNS.inc()
            logger.warning(
                "inference.call.overran",
                extra={"request": str(row.request_id), "overrun_nanos": answer.overrun_nanos},
            )
        if answer.verdict not in (answer.verdict.SETTLED, answer.verdict.ALREADY_DONE):
            logger.error(
                "inference.settlement.refused",
                extra={"request": str(row.request_id), "verdict": answer.verdict.value},
            )

    def _void_orphan(self, row: AdmissionRow, answer: AdmissionAnswer) -> None:
        """The caller left before its admission was answered: give the money back at once."""
        if answer.verdict in (Verdict.ADMITTED, Verdict.ALREADY_DONE):
            gone = AttemptEnd(id=row.attempt_id, outcome=AttemptOutcome.CLIENT_GONE)
            self.settle(
                settlement_row(
                    request_id=row.request_id, tenant_id=row.tenant_id, facts=NOTHING, attempts=[gone]
                )
            )

    # The clock.

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work again and again; one failed round is logged and does not end the process's clock."""
        while True:
            started_s = time.monotonic()
            try:
                await work()
            except Exception:
                logger.exception("inference.round.failed", extra={"work": work.__name__})
            await asyncio.sleep(max(0.05, interval_s - (time.monotonic() - started_s)))

    async def _watch_calls(self) -> None:
        async for calls in self._calls_in_turns():
            now_s = time.monotonic()
            for call in calls:
                if call.wants_lease:
                    call.watch(now_s)

    async def _cut_suspended(self) -> None:
        """Stop the calls of organizations that were suspended and may not finish them. One question a round,
        and none while nothing runs."""
        tenant_ids = {call.tenant_id for call in self.live.values()}
        if not tenant_ids:
            return
        try:
            cut = await in_time(self.database.cut_tenants(list(tenant_ids)), LOOK_UP_TIMEOUT_S)
        except psycopg.Error as error:
            logger.warning("inference.suspensions.not_asked", extra={"reason": type(error).__name__})
            return
        for call in list(self.live.values()):
            if call.tenant_id in cut:
                call.stop("SUSPENDED")

    async def _meter_second(self) -> None:
        """Write down, at the end of every second, what was delivered in it."""
        now_s = time.time()
        await asyncio.sleep(seconds_until_written(now_s))
        async for calls in self._calls_in_turns():
            for call in calls:
                if call.wants_lease:
                    call.meter(self.floor)
        await self.floor.write(second=int(now_s))

    async def _checkpoint_calls(self) -> None:
        """Make what was delivered durable, in batches, and cut calls whose lease is not theirs any more."""
        taken: list[ModelCall] = []
        rows: list[CheckpointRow] = []
        taken_at_s = time.monotonic()
        async for calls in self._calls_in_turns():
            for call in calls:
                if call.wants_lease:
                    taken.append(call)
                    rows.append(call.checkpoint())
            if len(rows) >= CHECKPOINT_CHUNK:
                await self._checkpoint(taken, rows, taken_at_s)
                taken, rows, taken_at_s = [], [], time.monotonic()
        if rows:
            await self._checkpoint(taken, rows, taken_at_s)

    async def _calls_in_turns(self) -> AsyncIterator[list["ModelCall"]]:
        """Those that are live, some at a time. One that has ended meanwhile wants no lease any more."""
        calls = list(self.live.values())
        for start in range(0, len(calls), TURN_CALLS):
            yield calls[start : start + TURN_CALLS]
            await asyncio.sleep(0)

    async def _checkpoint(
        self, calls: Sequence["ModelCall"], rows: Sequence[CheckpointRow], taken_at_s: float
    ) -> None:
        try:
            async with asyncio.timeout(self.config.lease_s / 4):
                alive = await self.database.checkpoint(rows)
        except (psycopg.Error, TimeoutError) as error:
            measures.CHECKPOINTS.labels("FAILED").inc()
            logger.warning(
                "inference.checkpoint.failed", extra={"reason": type(error).__name__, "calls": len(calls)}
            )
            return
        measures.CHECKPOINTS.labels("DONE").inc()
        for call in calls:
            is_renewed = alive.get(call.request_id)
            if is_renewed is None:
                call.stop("LEASE_LOST")
            elif is_renewed:
                call.lease_until_s = taken_at_s + self.config.lease_s
