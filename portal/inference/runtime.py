"""What the calls of one process share: database, batches, catalog, backends, and the clock that watches
every running call."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from portal.inference import measures
from portal.inference.config import InferenceConfig
from portal.inference.credentials import Authenticator
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time, is_transient
from portal.inference.errors import overloaded
from portal.inference.floor_meter import FloorMeter, seconds_until_written
from portal.inference.limits import RateGate
from portal.inference.snapshot import POLL_S, CatalogSnapshot
from portal.inference.upstream import Upstreams
from portal.kit import valkey
from portal.kit.batching import Closed, DeadlineExceeded, GroupCommit, QueueFull
from quotas.admission import AdmissionAnswer, AdmissionRow, Verdict
from quotas.limits.script_line import ANSWER_TIMEOUT_S
from quotas.metering.facts import NOTHING
from quotas.models import AttemptOutcome
from quotas.settlement import AttemptEnd, SettlementAnswer, SettlementRow, settlement_row

if TYPE_CHECKING:
    from portal.inference.call import ModelCall

logger = logging.getLogger(__name__)

TICK_S = 0.2
# Calls of a suspended organization end within a second, the question and the way to the client included.
SUSPENSION_POLL_S = 0.75
CHECKPOINT_CHUNK = 1000
# After so many calls the meter lets others have a turn.
METER_CHUNK = 100
# A checkpoint is taken a little earlier than promised, so that its commit is in time as well.
CHECKPOINT_MARGIN = 0.75
SETTLEMENT_DEADLINE_S = 120.0
# A flush holds a connection. Both group commits together take six at most, so that checkpoints and
# look-ups of keys find one even in the smallest pool.
FLUSHERS = 2
MAX_LANES = 1


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
        self.live: dict[UUID, ModelCall] = {}
        self.is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._admissions: GroupCommit[AdmissionRow, AdmissionAnswer] = GroupCommit(
            "admission",
            flush=self.database.admit,
            lane_flush=self.database.admit_lane,
            lane_of=lambda row: row.tenant_id,
            key_of=lambda row: row.request_id,
            is_transient=is_transient,
            on_orphan=self._void_orphan,
            flushers=FLUSHERS,
            max_lanes=MAX_LANES,
            flush_timeout_s=10.0,
        )
        self._settlements: GroupCommit[SettlementRow, SettlementAnswer] = GroupCommit(
            "settlement",
            flush=self.database.settle,
            lane_flush=self.database.settle_lane,
            lane_of=lambda row: row.tenant_id,
            key_of=lambda row: row.request_id,
            is_transient=is_transient,
            max_queue=50_000,
            flushers=FLUSHERS,
            max_lanes=MAX_LANES,
            flush_timeout_s=10.0,
        )
        self._admissions.observe = measures.observe_batch("admission")
        self._settlements.observe = measures.observe_batch("settlement")

    async def open(self) -> None:
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
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        await self._admissions.close(5.0)
        await self._settlements.close(10.0)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.rates.close()
        await self.upstreams.close()
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
            measures.ADMISSIONS.labels("UNAVAILABLE").inc()
            raise overloaded("The call could not be recorded in time, so it was not served.") from error
        except psycopg.Error as error:
            measures.ADMISSIONS.labels("FAILED").inc()
            logger.exception("inference.admission.failed")
            raise overloaded("The call could not be recorded, so it was not served.") from error
        measures.ADMISSIONS.labels(answer.reason or answer.verdict.value).inc()
        return answer

    def settle(self, row: SettlementRow) -> None:
        """Settle in the background: the answer has been delivered, the hold is durable either way."""
        self._spawn(self._settle(row))

    async def _settle(self, row: SettlementRow) -> None:
        try:
            answer = await self._settlements.submit(row, SETTLEMENT_DEADLINE_S)
        except Exception:
            # The hold stays, and the sweeper settles it to its last checkpoint.
            measures.SETTLEMENTS.labels("FAILED").inc()
            logger.exception("inference.settlement.failed", extra={"request": str(row.request_id)})
            return
        measures.SETTLEMENTS.labels(answer.verdict.value).inc()
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        now_s = time.monotonic()
        for call in list(self.live.values()):
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
        for number, call in enumerate(list(self.live.values())):
            call.meter(self.floor)
            if number % METER_CHUNK == METER_CHUNK - 1:
                await asyncio.sleep(0)
        await self.floor.write(second=int(now_s))

    async def _checkpoint_calls(self) -> None:
        """Make what was delivered durable, in batches, and cut calls whose lease is not theirs any more."""
        calls = [call for call in self.live.values() if call.wants_lease]
        for start in range(0, len(calls), CHECKPOINT_CHUNK):
            await self._checkpoint(calls[start : start + CHECKPOINT_CHUNK])

    async def _checkpoint(self, calls: Sequence["ModelCall"]) -> None:
        taken_at_s = time.monotonic()
        try:
            async with asyncio.timeout(self.config.lease_s / 4):
                alive = await self.database.checkpoint([call.checkpoint() for call in calls])
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
