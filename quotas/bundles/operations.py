"""Asking for a bundle, making it, and taking it away again."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from datetime import UTC, datetime, time, timedelta
from typing import IO, Final
from uuid import UUID

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from portal.kit.ids import PREFIXES, public_id
from portal.kit.secrets import MissingSecret, SecretStore
from quotas.bundles.certificate import Certificate, certificate
from quotas.bundles.making import LinesDiffer, Made, Order, TooManyLines, write_bundle
from quotas.models import (
    MAX_PART_BYTES,
    OPEN_BUNDLE_STATES,
    BillBundle,
    BillBundlePart,
    BundleFailure,
    BundleState,
)
from tenants.models import Tenant
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.operations.outbox import WAKE_OPTIONS
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_DAYS: Final = 366
FIRST_YEAR: Final = 2000
DAY: Final = timedelta(days=1)
# Who has not got further for so long has died.
STALLED: Final = timedelta(minutes=3)
MAX_RUNS: Final = 3
KEPT_BUNDLES: Final = 20
SWEPT_AT_A_TIME: Final = 200
# What an organization may ask for within DAY: each reads up to a year of calls.
MAX_A_DAY: Final = 10


class InvalidPeriod(ValueError):
    """A period begins and ends at midnight (UTC), is at most a year long, and has begun."""


class BundleUnderWay(ValueError):
    """Another bundle of the organization is being made."""


class TooManyBundles(ValueError):
    """The organization has asked for MAX_A_DAY bundles within a day."""


class _Superseded(Exception):
    """Somebody else makes the bundle by now, or it is gone."""


def request_bundle(
    *,
    tenant_id: UUID,
    from_at: datetime,
    to_at: datetime,
    actor: Actor,
    now: datetime,
    is_awaited: bool = False,
) -> UUID:
    """Ask for the bundle of calls admitted in [from_at, to_at); its id, which a task makes. is_awaited: the
    caller runs it, and no worker is told.

    Asking again for the same period while it is made gives the same. In the organization's scope. Errors:
    InvalidPeriod, BundleUnderWay, TooManyBundles (not where it is awaited).
    """
    if not (_is_midnight(from_at) and _is_midnight(to_at) and from_at < to_at <= from_at + MAX_DAYS * DAY):
        raise InvalidPeriod("a period has whole days, at most a year of them")
    if from_at > now or to_at > now + DAY or from_at.year < FIRST_YEAR:
        raise InvalidPeriod("the period has not come yet, or there was nothing then")
    underway = _underway(tenant_id, from_at, to_at)
    if underway is not None:
        return underway
    if not is_awaited:
        asked = BillBundle.objects.filter(tenant_id=tenant_id, created_at__gt=now - DAY)
        if asked.count() >= MAX_A_DAY:
            raise TooManyBundles(f"at most {MAX_A_DAY} within a day")
    try:
        with transaction.atomic(using=scope_alias()):
            bundle = BillBundle.objects.create(
                tenant_id=tenant_id,
                currency=Tenant.objects.values_list("currency", flat=True).get(id=tenant_id),
                from_at=from_at,
                to_at=to_at,
                asked_by_id=actor.user_id,
                created_at=now,
                touched_at=now,
            )
    except IntegrityError:
        # Somebody was quicker.
        found = _underway(tenant_id, from_at, to_at)
        if found is None:
            raise
        return found
    audit.record(
        actor=actor,
        action="bundle.request",
        tenant_id=tenant_id,
        target=public_id(PREFIXES["bundle"], bundle.id),
        after={"from": from_at.isoformat(), "to": to_at.isoformat()},
    )
    if not is_awaited:
        transaction.on_commit(lambda: wake(bundle_id=bundle.id), using=scope_alias(), robust=True)
    return bundle.id


def run_bundle(
    *, bundle_id: UUID, secrets: SecretStore | None, issuer: str, grace: timedelta, now: datetime
) -> bool:
    """Make a bundle that waits, or that whoever made it has left; whether it is ready.

    issuer: the address of this installation. grace: how long after a moment usage is complete at the
    earliest. Safe to run twice and beside itself: whoever comes second finds it taken. Outside every
    transaction.
    """
    with role_scope("operator"):
        bundle = _claimed(bundle_id, now)
        if bundle is None:
            return False
        try:
            if secrets is None:
                raise MissingSecret("this process has no secrets")
            return _make(bundle, secrets, issuer, grace, now)
        except MissingSecret:
            _fail(bundle, BundleFailure.NO_KEY)
        except TooManyLines:
            _fail(bundle, BundleFailure.TOO_LARGE)
        except LinesDiffer:
            logger.error("quotas.bundles.lines_differ", extra={"bundle": str(bundle_id)})
            _fail(bundle, BundleFailure.DIFFERS)
        except _Superseded:
            logger.info("quotas.bundles.superseded", extra={"bundle": str(bundle_id)})
        return False


def sweep_bundles(*, now: datetime, kept: timedelta) -> list[UUID]:
    """Take away what was made longer than `kept` ago; the bundles that nobody gets on with, because their
    message was lost or their worker died. Those begun often enough are given up. As operator."""
    stalled = BillBundle.objects.filter(state__in=OPEN_BUNDLE_STATES, touched_at__lt=now - STALLED)
    stalled.filter(run__gte=MAX_RUNS).update(
        state=BundleState.FAILED, failure=BundleFailure.NOT_FINISHED, finished_at=Now()
    )
    gone = BillBundle.objects.filter(finished_at__lt=now - kept).order_by("finished_at")
    BillBundle.objects.filter(id__in=list(gone.values_list("id", flat=True)[:SWEPT_AT_A_TIME])).delete()
    return list(stalled.values_list("id", flat=True)[:SWEPT_AT_A_TIME])


def wake(*, bundle_id: UUID) -> None:
    """Tell the worker; should the message get lost, the sweep finds the row."""
    if not current_app.conf.broker_url:
        return
    try:
        with current_app.connection_for_write(transport_options=WAKE_OPTIONS) as connection:
            current_app.send_task(
                "quotas.tasks.make_bill_bundle",
                args=[str(bundle_id)],
                queue="default",
                retry=False,
                connection=connection,
            )
    except BrokerError:
        logger.warning("quotas.bundles.worker_not_woken")


def _make(bundle: BillBundle, secrets: SecretStore, issuer: str, grace: timedelta, now: datetime) -> bool:
    key = secrets.signing_key()
    proof = certificate(
        tenant_id=bundle.tenant_id, from_at=bundle.from_at, to_at=bundle.to_at, now=now, grace=grace
    )
    _touch(bundle)
    order = Order(bundle.id, bundle.tenant_id, bundle.currency, bundle.from_at, bundle.to_at, issuer)
    with tempfile.TemporaryFile() as file:
        made = write_bundle(
            file=file,
            order=order,
            proof=proof,
            key=key,
            progress=lambda done, expected: _get_on(bundle, done, expected),
        )
        _touch(bundle)
        _keep(bundle, file, made, proof, key.public.id)
    return True


def _keep(bundle: BillBundle, file: IO[bytes], made: Made, proof: Certificate, key_id: str) -> None:
    """The file in parts and the row that says it is ready, at once; the oldest of too many go."""
    digest, size, ordinal = hashlib.sha256(), 0, 0
    with transaction.atomic(using=scope_alias()):
        if not _mine(bundle).select_for_update(no_key=True).exists():
            raise _Superseded
        file.seek(0)
        while piece := file.read(MAX_PART_BYTES):
            digest.update(piece)
            size += len(piece)
            BillBundlePart.objects.bulk_create(
                [BillBundlePart(bundle=bundle, ordinal=ordinal, tenant_id=bundle.tenant_id, content=piece)]
            )
            ordinal += 1
        _mine(bundle).update(
            state=BundleState.READY,
            lines_done=made.lines,
            touched_at=Now(),
            finished_at=Now(),
            made_at=made.made_at,
            complete_to=proof.complete_to,
            charged_nanos=made.charged_nanos,
            size_bytes=size,
            sha256=digest.hexdigest(),
            key_id=key_id,
        )
        audit.record(
            actor=audit.SYSTEM,
            action="bundle.ready",
            tenant_id=bundle.tenant_id,
            target=public_id(PREFIXES["bundle"], bundle.id),
            after={"sha256": digest.hexdigest(), "size_bytes": size, "key": key_id},
        )
        finished = BillBundle.objects.filter(tenant_id=bundle.tenant_id).exclude(state__in=OPEN_BUNDLE_STATES)
        kept = list(finished.order_by("-id").values_list("id", flat=True)[:KEPT_BUNDLES])
        finished.exclude(id__in=kept).delete()


def _claimed(bundle_id: UUID, now: datetime) -> BillBundle | None:
    is_left = Q(state=BundleState.RUNNING, touched_at__lt=now - STALLED) | Q(state=BundleState.WAITING)
    claimed = BillBundle.objects.filter(is_left, id=bundle_id, run__lt=MAX_RUNS).update(
        state=BundleState.RUNNING, run=F("run") + 1, touched_at=Now(), lines_done=0
    )
    return BillBundle.objects.get(id=bundle_id) if claimed else None


def _get_on(bundle: BillBundle, done: int, expected: int) -> None:
    # Called within the organization's scope and its one long transaction, beside which this one commits. More
    # lines than the hourly sums know are calls that were not billed.
    with role_scope("operator"):
        if not _mine(bundle).update(lines_done=done, lines_expected=max(done, expected), touched_at=Now()):
            raise _Superseded


def _touch(bundle: BillBundle) -> None:
    """Between long steps, that nobody takes it for left."""
    if not _mine(bundle).update(touched_at=Now()):
        raise _Superseded


def _fail(bundle: BillBundle, failure: BundleFailure) -> None:
    _mine(bundle).update(state=BundleState.FAILED, failure=failure, finished_at=Now())


def _mine(bundle: BillBundle) -> QuerySet[BillBundle]:
    return BillBundle.objects.filter(id=bundle.id, state=BundleState.RUNNING, run=bundle.run)


def _underway(tenant_id: UUID, from_at: datetime, to_at: datetime) -> UUID | None:
    """The open bundle of this very period. Errors: BundleUnderWay for one of another."""
    found = BillBundle.objects.filter(tenant_id=tenant_id, state__in=OPEN_BUNDLE_STATES).first()
    if found is None:
        return None
    if (found.from_at, found.to_at) != (from_at, to_at):
        raise BundleUnderWay("one bundle at a time")
    return found.id


def _is_midnight(at: datetime) -> bool:
    return at.tzinfo is not None and at.astimezone(UTC).timetz() == time(tzinfo=UTC)
