"""What backends' usage feeds say call by call, where both witnesses disagree, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from models_catalog.models import ServingBackend, UsageFeed
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import Tenant
from tenants.scope import TenantManager

MAX_QUARANTINED_BODY = 4000


class FeedFile(models.Model):
    """How far one file of a feed has been read. The cursor commits with the records that it passed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    feed = models.ForeignKey(UsageFeed, on_delete=models.PROTECT, related_name="+", db_index=False)
    identity = models.CharField(max_length=80, help_text="Of the file itself, whatever it is called.")
    name = models.CharField(max_length=500)
    offset = models.BigIntegerField(default=0, help_text="In bytes: all before it has been read.")
    mark = models.CharField(
        max_length=32, blank=True, default="", help_text="Digest of the bytes before the offset."
    )
    lines = models.BigIntegerField(default=0)
    entries = models.BigIntegerField(default=0, help_text="Lines that say what a call used.")
    quarantined = models.BigIntegerField(default=0)
    last_event_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True, help_text="When its end was last reached.")
    is_closed = models.BooleanField(default=False, help_text="Rotated away: nothing more is written to it.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["feed", "identity"], name="feedfile_once"),
            models.CheckConstraint(
                condition=Q(offset__gte=0, lines__gte=0, entries__gte=0, quarantined__gte=0)
                & Q(lines__gte=F("entries") + F("quarantined")),
                name="feedfile_counts",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class FeedState(models.Model):
    """Until when all that a feed says has been read: never falls."""

    feed = models.OneToOneField(UsageFeed, primary_key=True, on_delete=models.PROTECT, related_name="+")
    complete_to = models.DateTimeField(null=True, blank=True, help_text="Before grace.")
    heard_at = models.DateTimeField(null=True, blank=True, help_text="When it last said anything.")
    error = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(complete_to=None) | Q(complete_to__gte=datetime(2000, 1, 1, tzinfo=UTC)),
                name="feedstate_complete_to_sane",
            )
        ]

    def __str__(self) -> str:
        return f"{self.feed_id} to {self.complete_to}"


class FeedVerdict(models.TextChoices):
    """How a record stands to what the gateway metered, when both were last compared."""

    MATCHED = "MATCHED"
    MISMATCHED = "MISMATCHED"
    EARLY = "EARLY"  # its attempt is not settled yet
    REPEATED = "REPEATED"  # another record counts for the same attempt
    FOREIGN = "FOREIGN"  # it names no attempt of ours on this backend


class FeedFinish(models.TextChoices):
    STOP = "STOP"
    LENGTH = "LENGTH"
    ABORT = "ABORT"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"


class FeedRecord(models.Model):
    """What a backend says of one call. Partitioned by day on the subject's UUIDv7.

    Its key is its content: the same facts by another file, format or way in are the same row. The subject is
    our attempt; a record that names none has an id made of its time and of what names it. No tenant: an
    engine knows none. Tokens are totals: cached within prompt, reasoning within completion.
    """

    pk = models.CompositePrimaryKey("subject_id", "content_id")
    subject_id = models.UUIDField()
    content_id = models.UUIDField()
    # Both are of the batch that brought it, so no row asks for them again.
    backend = models.ForeignKey(
        ServingBackend, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    feed = models.ForeignKey(
        UsageFeed, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    part = models.PositiveSmallIntegerField(default=0, help_text="Of a list of inputs.")
    wire_id = models.CharField(max_length=200, blank=True, default="", help_text="Of foreign records only.")
    prompt_tokens = models.PositiveIntegerField()
    cached_tokens = models.PositiveIntegerField(null=True, blank=True, help_text="Empty when not told.")
    completion_tokens = models.PositiveIntegerField()
    reasoning_tokens = models.PositiveIntegerField(null=True, blank=True, help_text="Empty when not told.")
    finish = models.CharField(max_length=8, choices=FeedFinish)
    event_at = models.DateTimeField(help_text="When the backend was done; else when it was read.")
    received_at = models.DateTimeField()
    verdict = models.CharField(max_length=12, choices=FeedVerdict)
    is_late = models.BooleanField(default=False, help_text="Its window was closed already.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(verdict__in=FeedVerdict.values, finish__in=FeedFinish.values)
                & (Q(cached_tokens=None) | Q(cached_tokens__lte=F("prompt_tokens")))
                & (Q(reasoning_tokens=None) | Q(reasoning_tokens__lte=F("completion_tokens"))),
                name="feedrecord_whole",
            ),
        ]
        indexes = [
            # The few that somebody has to look at again.
            models.Index(
                fields=["backend", "event_at"],
                condition=~Q(verdict=FeedVerdict.MATCHED),
                name="feedrecord_open",
            ),
            models.Index(
                fields=["backend", "subject_id"],
                condition=Q(verdict=FeedVerdict.EARLY),
                name="feedrecord_early",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject_id} {self.verdict}"


class QuarantineState(models.TextChoices):
    OPEN = "OPEN"
    READ = "READ"  # a later try could read it
    DISMISSED = "DISMISSED"


class FeedQuarantine(models.Model):
    """A line that could not be read: where it stands, never what it says. Of what was pushed there is no
    file, so its body is kept with all text taken out."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    feed = models.ForeignKey(UsageFeed, on_delete=models.PROTECT, related_name="+", db_index=False)
    file = models.ForeignKey(
        FeedFile, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    offset = models.BigIntegerField(help_text="Of a file, in bytes; of a pushed body, its number in it.")
    length = models.BigIntegerField()
    sha256 = models.BinaryField(max_length=32)
    reason = models.CharField(max_length=32)
    detail = models.CharField(max_length=200, blank=True, default="")
    body = models.CharField(max_length=MAX_QUARANTINED_BODY, blank=True, default="")
    received_at = models.DateTimeField()
    state = models.CharField(max_length=12, choices=QuarantineState, default=QuarantineState.OPEN)
    resolved_at = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["feed", "file", "offset", "sha256"], name="quarantine_once", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(state=QuarantineState.OPEN, resolved_at=None)
                | (Q(state__in=(QuarantineState.READ, QuarantineState.DISMISSED)) & ~Q(resolved_at=None)),
                name="quarantine_resolved_with_time",
            ),
            models.CheckConstraint(condition=Q(offset__gte=0, length__gte=0), name="quarantine_place"),
            models.CheckConstraint(condition=~Q(reason=""), name="quarantine_reason_given"),
            # What has a file is read again from it.
            models.CheckConstraint(condition=Q(file=None) | Q(body=""), name="quarantine_no_text_of_files"),
        ]
        indexes = [models.Index(fields=["feed", "-id"], name="quarantine_feed")]

    def __str__(self) -> str:
        return public_id(PREFIXES["feed_line"], self.id)


class DiscrepancyKind(models.TextChoices):
    MISMATCHED = "MISMATCHED"  # a whole answer, and the counts differ
    LOST_SETTLEMENT = "LOST_SETTLEMENT"  # the gateway's last word never came
    SURPLUS = "SURPLUS"  # the backend went on after the client had left
    GATEWAY_ONLY = "GATEWAY_ONLY"  # no record came in time
    REPEATED = "REPEATED"  # two records of one attempt say different things


class DiscrepancyState(models.TextChoices):
    OPEN = "OPEN"
    WAITING = "WAITING"  # for an operator's approval: above a limit
    CORRECTED = "CORRECTED"
    EXPLAINED = "EXPLAINED"  # nothing to correct, and it is known why
    ACCEPTED = "ACCEPTED"  # an operator let the gateway's word stand
    WAIVED = "WAIVED"  # an operator took it on us


OPEN_DISCREPANCY_STATES = (DiscrepancyState.OPEN, DiscrepancyState.WAITING)


class CorrectionCause(models.TextChoices):
    COUNTS_DIFFER = "COUNTS_DIFFER"
    SETTLEMENT_LOST = "SETTLEMENT_LOST"
    BY_HAND = "BY_HAND"


class Discrepancy(models.Model):
    """Both witnesses of one attempt, where they do not agree. One of a kind for each attempt."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=16, choices=DiscrepancyKind)
    state = models.CharField(max_length=12, choices=DiscrepancyState, default=DiscrepancyState.OPEN)
    attempt_id = models.UUIDField()
    request_id = models.UUIDField()
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="+", db_index=False)
    event_at = models.DateTimeField()
    opened_at = models.DateTimeField()
    gateway_prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    gateway_cached_tokens = models.PositiveIntegerField(null=True, blank=True)
    gateway_completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    gateway_reasoning_tokens = models.PositiveIntegerField(null=True, blank=True)
    feed_prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    feed_cached_tokens = models.PositiveIntegerField(null=True, blank=True)
    feed_completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    feed_reasoning_tokens = models.PositiveIntegerField(null=True, blank=True)
    feed_finish = models.CharField(max_length=8, choices=FeedFinish, blank=True, default="")
    delta_nanos = models.BigIntegerField(
        null=True, blank=True, help_text="What it changes of the charge: posted, or waiting to be."
    )
    overrun_nanos = models.BigIntegerField(
        default=0, db_default=0, help_text="What the backend served beyond the bill, at list price: ours."
    )
    overrun_revision = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How often that was posted."
    )
    is_late = models.BooleanField(default=False)
    revision = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Of the usage that it made.")
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
    )
    reason = models.CharField(max_length=500, blank=True, default="")

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["attempt_id", "kind"], name="discrepancy_once"),
            models.CheckConstraint(
                condition=Q(kind__in=DiscrepancyKind.values, state__in=DiscrepancyState.values),
                name="discrepancy_kinds_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=OPEN_DISCREPANCY_STATES, resolved_at=None)
                | (~Q(state__in=OPEN_DISCREPANCY_STATES) & ~Q(resolved_at=None)),
                name="discrepancy_resolved_with_time",
            ),
            models.CheckConstraint(
                condition=Q(revision=None) | Q(state=DiscrepancyState.CORRECTED),
                name="discrepancy_revision_of_corrected",
            ),
            models.CheckConstraint(condition=Q(overrun_nanos__gte=0), name="discrepancy_overrun_positive"),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="discrepancy_state"),
            models.Index(fields=["backend", "event_at"], name="discrepancy_backend"),
            models.Index(fields=["tenant", "-id"], name="discrepancy_tenant"),
            models.Index(fields=["request_id"], name="discrepancy_request"),
            # What workers have to look at.
            models.Index(
                fields=["id"],
                condition=Q(state=DiscrepancyState.OPEN) & ~Q(kind=DiscrepancyKind.GATEWAY_ONLY),
                name="discrepancy_due",
            ),
            models.Index(
                fields=["backend", "attempt_id"],
                condition=Q(kind=DiscrepancyKind.LOST_SETTLEMENT, gateway_prompt_tokens=None),
                name="discrepancy_lost",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["discrepancy"], self.id)


class Correction(models.Model):
    """Why a later revision of a call's usage exists, for the organization to read."""

    pk = models.CompositePrimaryKey("request_id", "revision")
    request_id = models.UUIDField()
    revision = models.PositiveSmallIntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    cause = models.CharField(max_length=16, choices=CorrectionCause)
    # Changes of the request's totals, positive when it costs the organization more.
    delta_nanos = models.BigIntegerField()
    posted_at = models.DateTimeField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cause__in=CorrectionCause.values), name="correction_cause_known"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-posted_at"], name="correction_tenant"),
            # Those that organizations are still to be told of.
            models.Index(fields=["posted_at"], name="correction_posted"),
        ]

    def __str__(self) -> str:
        return f"{public_id(PREFIXES['request'], self.request_id)} r{self.revision}"
