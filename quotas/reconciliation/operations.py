"""Writes of the second witness: taking samples of the backends' counters, and thinning old ones out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connections, transaction

from models_catalog.engines import CounterReading
from models_catalog.models import FleetState, ServingBackend
from portal.kit.secrets import SecretError, SecretStore
from quotas.models import CounterSample
from quotas.reconciliation.scrape import Scrape, Target, scrape_all
from tenants.scope import role_scope

SCRAPE_TIMEOUT_S = 5.0


class InsideTransaction(RuntimeError):
    """Backends were to be asked while a transaction was open."""


@dataclass(frozen=True, slots=True)
class SampleReport:
    """How many backends were read, could not be read, and were read by somebody else meanwhile."""

    read: int
    failed: int
    out_of_turn: int


def sample_counters(*, secrets: SecretStore | None, timeout_s: float = SCRAPE_TIMEOUT_S) -> SampleReport:
    """Take one sample of each backend that serves or drains. Safe to run twice and beside itself.

    No transaction is open while backends are asked. Errors: InsideTransaction.
    """
    if connections["dataplane"].in_atomic_block:
        raise InsideTransaction("backends are not asked inside a transaction")
    with role_scope("dataplane"):
        backends = list(ServingBackend.objects.exclude(state=FleetState.DISABLED).order_by("code"))
        before_s, zero, after_s = min(
            (_look_at_clocks() for _ in range(3)), key=lambda looks: looks[2] - looks[0]
        )
        scrapes = scrape_all([_target(backend, secrets) for backend in backends], timeout_s=timeout_s)

        # Attempts carry the database's time, so samples do too. It was read between two looks at our own
        # clock; each moment is taken so that the reading surely lies between the two.
        kept = [
            _store(
                one,
                asked_at=zero + timedelta(seconds=one.asked_s - after_s),
                sampled_at=zero + timedelta(seconds=one.answered_s - before_s),
            )
            for one in scrapes
        ]
    return SampleReport(
        read=sum(1 for one, is_kept in zip(scrapes, kept, strict=True) if is_kept and not one.error),
        failed=sum(1 for one, is_kept in zip(scrapes, kept, strict=True) if is_kept and one.error),
        out_of_turn=kept.count(False),
    )


def thin_counter_samples() -> int:
    """Throw away samples that are no longer needed, as the SQL function says; how many went."""
    with role_scope("dataplane"), connections["dataplane"].cursor() as cursor:
        cursor.execute("SELECT quotas_thin_counter_samples()")
        return int(cursor.fetchone()[0])


def _look_at_clocks() -> tuple[float, datetime, float]:
    """The database's time, between two looks at our own clock (monotonic seconds)."""
    with connections["dataplane"].cursor() as cursor:
        before_s = time.monotonic()
        cursor.execute("SELECT clock_timestamp()")
        moment = cursor.fetchone()[0]
        return before_s, moment, time.monotonic()


def _target(backend: ServingBackend, secrets: SecretStore | None) -> Target:
    credential, refusal = None, ""
    if backend.credential_encrypted:
        try:
            credential = secrets.decrypt(backend.credential_encrypted) if secrets else None
        except SecretError:
            credential = None
        refusal = "" if credential is not None else "its credential cannot be read"
    return Target(backend.id, backend.engine, backend.base_url, credential, refusal)


def _store(scrape: Scrape, *, asked_at: datetime, sampled_at: datetime) -> bool:
    """Keep what one backend answered; False when somebody else has read the backend since we asked."""
    with transaction.atomic(using="dataplane"):
        with connections["dataplane"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('counter_sample:' || %s, 0))",
                [str(scrape.backend_id)],
            )
        of_backend = CounterSample.objects.filter(backend_id=scrape.backend_id).order_by("-sampled_at")
        newest = of_backend.first()
        last = newest if newest is None or not newest.error else of_backend.filter(error="").first()
        if newest is not None and asked_at < newest.sampled_at:
            return False
        sample = CounterSample(
            backend_id=scrape.backend_id,
            incarnation=last.incarnation if last else 0,
            asked_at=asked_at,
            sampled_at=sampled_at,
            error=scrape.error,
        )
        if scrape.reading is not None:
            _take_over(sample, scrape.reading, last)
        sample.save(force_insert=True)
    return True


def _take_over(sample: CounterSample, reading: CounterReading, last: CounterSample | None) -> None:
    sample.prompt_tokens = reading.prompt_tokens
    sample.cached_tokens = reading.cached_tokens
    sample.completion_tokens = reading.completion_tokens
    sample.requests_finished = reading.requests_finished
    sample.running = reading.running
    sample.prompt_excludes_cached = reading.prompt_excludes_cached
    sample.start_mark = reading.start_mark
    if last is None:
        sample.incarnation = 1
    elif is_another_life(reading=reading, last=last):
        sample.incarnation = last.incarnation + 1


def is_another_life(*, reading: CounterReading, last: CounterSample) -> bool:
    """Whether the engine was started anew since: it says so, or a counter fell, which none does alone.

    A restart without either sign cannot be told: an engine without a mark that has served more since its
    start than in its whole life before, all between two samples.
    """
    if reading.start_mark and last.start_mark and reading.start_mark != last.start_mark:
        return True
    pairs: Sequence[tuple[int | None, int | None]] = (
        (reading.prompt_tokens, last.prompt_tokens),
        (reading.completion_tokens, last.completion_tokens),
        (reading.cached_tokens, last.cached_tokens),
        (reading.requests_finished, last.requests_finished),
    )
    return any(now < before for now, before in pairs if now is not None and before is not None)
