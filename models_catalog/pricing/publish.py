"""Publishing: a draft counts from a moment ahead, and whatever counted until then ends at that moment.

Both are written in one transaction that commits before the moment (a trigger sees to it), so no call meets a
gap or two prices. A version that begins later stays: the new one ends where it begins, unless the operator
replaces what is scheduled; then those versions end where they would have begun, which is never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import F, Q

from models_catalog.models import PriceNotice, PriceNoticeKind, PriceVersion
from models_catalog.pricing.affected import Affected, Place, affected_by, payers
from models_catalog.pricing.content import Gap, gaps
from models_catalog.pricing.drafts import DraftChanged, DraftNotFound, locked_draft, of_tenant, price_id
from models_catalog.pricing.locking import busy_is_said, lock_catalog
from models_catalog.pricing.storage import read_content
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.scope import scope_alias

MIN_LEAD: Final = timedelta(minutes=1)
"""How far ahead a change begins at least: its transaction has to commit before."""
MAX_AHEAD: Final = timedelta(days=730)


class IncompleteDraft(ValueError):
    """The draft lacks prices that every version needs; `gaps` says which."""

    def __init__(self, missing: Sequence[Gap]) -> None:
        super().__init__("the draft has no price for every input length")
        self.gaps = tuple(missing)


class InvalidMoment(ValueError):
    """The moment is too early or too far ahead; `earliest_at` and `latest_at` are the bounds."""

    def __init__(self, earliest_at: datetime, latest_at: datetime) -> None:
        super().__init__(f"the moment must be from {earliest_at.isoformat()} to {latest_at.isoformat()}")
        self.earliest_at = earliest_at
        self.latest_at = latest_at


class NoticeTooShort(ValueError):
    """Something gets dearer, and those who pay it must hear of it in time: `earliest_at` is in time."""

    def __init__(self, earliest_at: datetime, payers: Sequence[Affected]) -> None:
        super().__init__(f"an increase begins at {earliest_at.isoformat()} at the earliest")
        self.earliest_at = earliest_at
        self.payers = tuple(payers)


class MomentTaken(ValueError):
    """Another published version begins at this very moment, `version_id`; replace it or choose another."""

    def __init__(self, version_id: UUID) -> None:
        super().__init__("another published version begins at this moment")
        self.version_id = version_id


class NotAPrivatePrice(LookupError):
    """There is no such published private price that could still be given this end."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What publishing would do, or did.

    active_to: where a later version takes over. ends: the version that this one follows without a gap.
    withdraws: scheduled versions that never come. earliest_at: when it may begin, given who pays more.
    """

    version_id: UUID
    active_from: datetime
    active_to: datetime | None
    ends: UUID | None
    withdraws: tuple[UUID, ...]
    affected: tuple[Affected, ...]
    earliest_at: datetime
    content_sha256: str

    @property
    def payers(self) -> list[Affected]:
        return payers(self.affected)


def plan_publication(
    *,
    version_id: UUID,
    active_from: datetime,
    notice: timedelta,
    now: datetime,
    replaces_scheduled: bool = False,
    lead: timedelta = MIN_LEAD,
) -> Publication:
    """What publish_draft would do at `now`; nothing is written. A moment too early is planned all the same,
    so that the plan can say which one is not. Errors: DraftNotFound, IncompleteDraft, MomentTaken."""
    draft = PriceVersion.objects.filter(id=version_id, published_at=None).first()
    if draft is None:
        raise DraftNotFound("there is no such draft")
    return _plan(draft, active_from, notice, now, replaces_scheduled, lead)


def publish_draft(
    *,
    version_id: UUID,
    active_from: datetime,
    notice: timedelta,
    actor: Actor,
    reason: str,
    now: datetime,
    replaces_scheduled: bool = False,
    expected: str | None = None,
    lead: timedelta = MIN_LEAD,
) -> Publication:
    """Publish a draft from a moment on, and tell by mail who pays more.

    notice: how long before an increase those who pay it hear of it. expected: the digest of the content that
    was looked at. Moments are measured by the database's clock (a later `now` stands in for it).
    Errors: DraftNotFound, DraftChanged, IncompleteDraft, InvalidMoment, NoticeTooShort, MomentTaken,
    CatalogBusy, audit.ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with busy_is_said(), transaction.atomic(using=scope_alias()):
        moment = lock_catalog(scope_alias(), now)
        _promise_ahead()
        draft = locked_draft(version_id)
        plan = _plan(draft, active_from, notice, moment, replaces_scheduled, lead)
        if expected is not None and expected != plan.content_sha256:
            raise DraftChanged("somebody else has edited the draft")
        _check_moment(active_from, moment, lead)
        _check_notice(plan.payers, moment, notice, plan.earliest_at)
        _end_others(plan)
        PriceVersion.objects.filter(id=version_id, published_at=None).update(
            active_from=active_from,
            active_to=plan.active_to,
            published_at=moment,
            published_by_id=actor.user_id,
        )
        told = _announce(PriceNoticeKind.NEW_PRICE, version_id, plan.payers, moment)
        _take_back_announcements(plan, moment)
        _record_publication(actor, draft, plan, told, reason)
    return plan


def plan_private_end(
    *, version_id: UUID, ends_at: datetime, notice: timedelta, now: datetime, lead: timedelta = MIN_LEAD
) -> Publication:
    """What end_private_price would do at `now`; nothing is written. Errors: NotAPrivatePrice."""
    return _plan_end(_private(version_id, now), ends_at, notice, now, lead)


def end_private_price(
    *,
    version_id: UUID,
    ends_at: datetime,
    notice: timedelta,
    actor: Actor,
    reason: str,
    now: datetime,
    lead: timedelta = MIN_LEAD,
) -> Publication:
    """Give a published private price an end, from which the list counts; one that lies before its beginning
    takes it back before it ever held. If the list is dearer the organization hears of it in time.

    Errors: NotAPrivatePrice, InvalidMoment, NoticeTooShort, CatalogBusy, audit.ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with busy_is_said(), transaction.atomic(using=scope_alias()):
        moment = lock_catalog(scope_alias(), now)
        _promise_ahead()
        version = _private(version_id, moment)
        plan = _plan_end(version, ends_at, notice, moment, lead)
        _check_moment(plan.active_from, moment, lead)
        _check_notice(plan.payers, moment, notice, plan.earliest_at)
        try:
            with transaction.atomic(using=scope_alias()):
                PriceVersion.objects.filter(id=version_id).update(active_to=plan.active_from)
        except IntegrityError as error:
            raise NotAPrivatePrice("another private price begins before that end") from error
        told = _announce(PriceNoticeKind.PRIVATE_END, version_id, plan.payers, moment)
        audit.record(
            actor=actor,
            action="price.end",
            tenant_id=version.tenant_id,
            target=price_id(version_id),
            before={"active_to": _text(version.active_to)},
            after={"active_to": _text(plan.active_from), "dearer": bool(plan.payers), "told": told},
            reason=reason,
            is_internal=True,
        )
    return plan


def _plan(
    draft: PriceVersion,
    active_from: datetime,
    notice: timedelta,
    moment: datetime,
    replaces_scheduled: bool,
    lead: timedelta,
) -> Publication:
    content = read_content(draft)
    missing = gaps(content.lines)
    if missing:
        raise IncompleteDraft(missing)
    place = Place(draft.model_id, draft.currency, draft.tenant_id)
    others = _published(place)
    covering = others.filter(active_from__lt=active_from).filter(
        Q(active_to=None) | Q(active_to__gt=active_from)
    )
    later = list(others.filter(active_from__gte=active_from).order_by("active_from"))
    if later and not replaces_scheduled and later[0].active_from == active_from:
        raise MomentTaken(later[0].id)
    active_to = later[0].active_from if later and not replaces_scheduled else None
    affected = affected_by(
        place=place, content=content, active_from=active_from, active_to=active_to, now=moment
    )
    return Publication(
        version_id=draft.id,
        active_from=active_from,
        active_to=active_to,
        ends=covering.values_list("id", flat=True).first(),
        withdraws=tuple(version.id for version in later) if replaces_scheduled else (),
        affected=tuple(affected),
        earliest_at=_earliest(affected, moment, notice, lead),
        content_sha256=content.sha256,
    )


def _plan_end(
    version: PriceVersion, ends_at: datetime, notice: timedelta, moment: datetime, lead: timedelta
) -> Publication:
    ends_at = max(ends_at, version.active_from)
    place = Place(version.model_id, version.currency, version.tenant_id)
    after = _published(place).exclude(id=version.id).filter(active_from__lte=ends_at)
    follower = after.filter(Q(active_to=None) | Q(active_to__gt=ends_at)).first()
    if follower is None:
        listed = _published(Place(version.model_id, version.currency, None)).filter(active_from__lte=ends_at)
        follower = listed.filter(Q(active_to=None) | Q(active_to__gt=ends_at)).first()
    affected = affected_by(
        place=place,
        content=None if follower is None else read_content(follower),
        active_from=ends_at,
        active_to=None,
        now=moment,
    )
    return Publication(
        version_id=version.id,
        active_from=ends_at,
        active_to=None,
        ends=version.id,
        withdraws=(),
        affected=tuple(affected),
        earliest_at=_earliest(affected, moment, notice, lead),
        content_sha256="",
    )


def _published(place: Place) -> Any:
    """Published versions of a place that hold at some time."""
    return PriceVersion.objects.filter(
        of_tenant(place.tenant_id),
        model_id=place.model_id,
        currency=place.currency,
        published_at__isnull=False,
    ).exclude(active_to=F("active_from"))


def _private(version_id: UUID, moment: datetime) -> PriceVersion:
    version = (
        PriceVersion.objects.filter(id=version_id, tenant_id__isnull=False, published_at__isnull=False)
        .filter(Q(active_to=None) | Q(active_to__gt=moment))
        .exclude(active_to=F("active_from"))
        .first()
    )
    if version is None:
        raise NotAPrivatePrice("there is no such private price, or it has ended")
    return version


def _earliest(affected: Sequence[Affected], moment: datetime, notice: timedelta, lead: timedelta) -> datetime:
    return moment + (max(notice, lead) if payers(affected) else lead)


def _check_moment(at: datetime, moment: datetime, lead: timedelta) -> None:
    if not moment + lead <= at <= moment + MAX_AHEAD:
        raise InvalidMoment(moment + lead, moment + MAX_AHEAD)


def _check_notice(
    pay_more: Sequence[Affected], moment: datetime, notice: timedelta, earliest_at: datetime
) -> None:
    late = [one for one in pay_more if one.at < moment + notice]
    if late:
        raise NoticeTooShort(earliest_at, late)


def _promise_ahead() -> None:
    """What this transaction publishes and ends lies ahead when it commits; a trigger checks that."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT set_config('app.prices_ahead', 'on', true)")


def _end_others(plan: Publication) -> None:
    if plan.ends is not None:
        PriceVersion.objects.filter(id=plan.ends).update(active_to=plan.active_from)
    PriceVersion.objects.filter(id__in=plan.withdraws).update(active_to=F("active_from"))


def _announce(kind: PriceNoticeKind, version_id: UUID, pay_more: Sequence[Affected], moment: datetime) -> int:
    """Durable rows that a task turns into mails; how many."""
    notices = [
        PriceNotice(
            tenant_id=one.tenant_id,
            version_id=version_id,
            before_id=one.before,
            kind=kind,
            takes_effect_at=one.at,
            next_attempt_at=moment,
        )
        for one in pay_more
    ]
    PriceNotice.objects.bulk_create(notices, batch_size=1000, ignore_conflicts=True)
    return len(notices)


def _take_back_announcements(plan: Publication, moment: datetime) -> None:
    """Who was told of a price that is withdrawn and pays no more instead hears that, too."""
    still = {one.tenant_id for one in plan.payers}
    announced = PriceNotice.objects.filter(version_id__in=plan.withdraws, kind=PriceNoticeKind.NEW_PRICE)
    PriceNotice.objects.bulk_create(
        [
            PriceNotice(
                tenant_id=notice.tenant_id,
                version_id=notice.version_id,
                before_id=plan.version_id,
                kind=PriceNoticeKind.WITHDRAWN,
                takes_effect_at=notice.takes_effect_at,
                next_attempt_at=moment,
            )
            for notice in announced
            if notice.tenant_id not in still
        ],
        batch_size=1000,
        ignore_conflicts=True,
    )


def _record_publication(actor: Actor, draft: PriceVersion, plan: Publication, told: int, reason: str) -> None:
    after: Mapping[str, Any] = {
        "active_from": _text(plan.active_from),
        "active_to": _text(plan.active_to),
        "content_sha256": plan.content_sha256,
        "ends": price_id(plan.ends) if plan.ends else None,
        "withdraws": [price_id(version) for version in plan.withdraws],
        "affected": len(plan.affected),
        "told": told,
    }
    audit.record(
        actor=actor,
        action="price.publish",
        tenant_id=draft.tenant_id,
        target=price_id(draft.id),
        before={"state": "DRAFT"},
        after=after,
        reason=reason,
        is_internal=True,
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
