"""Bills as files that can be checked without us. Written by quotas.bundles."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import Tenant, User
from tenants.scope import TenantManager

MAX_PART_BYTES = 2**20


class BundleState(models.TextChoices):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


OPEN_BUNDLE_STATES = (BundleState.WAITING, BundleState.RUNNING)


class BundleFailure(models.TextChoices):
    """Why a bundle could not be made."""

    NOT_FINISHED = "NOT_FINISHED"  # however often it was begun
    TOO_LARGE = "TOO_LARGE"  # more calls than a bundle holds
    NO_KEY = "NO_KEY"  # the installation has nothing to sign with
    DIFFERS = "DIFFERS"  # its lines do not add up to the hourly sums, so it was not signed


class BillBundle(models.Model):
    """A signed file of all usage of calls that were admitted in a half-open period, and what it rests on.

    lines_expected: calls by the hourly sums, for the progress alone. run: how often it was begun; what an
    earlier run still writes is not taken. made_at: the moment whose state it shows. complete_to: until when
    usage was complete then. charged_nanos: its total. Goes with its parts after a while.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=BundleState, default=BundleState.WAITING)
    asked_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    run = models.PositiveSmallIntegerField(default=0)
    lines_expected = models.BigIntegerField(default=0)
    lines_done = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField(help_text="When it last got further.")
    finished_at = models.DateTimeField(null=True, blank=True)
    made_at = models.DateTimeField(null=True, blank=True)
    complete_to = models.DateTimeField(null=True, blank=True)
    charged_nanos = models.BigIntegerField(null=True, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    key_id = models.CharField(max_length=32, blank=True)
    failure = models.CharField(max_length=16, choices=BundleFailure, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "tenant"], name="bundle_id_tenant"),
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(state__in=OPEN_BUNDLE_STATES), name="bundle_one_open"
            ),
            models.CheckConstraint(
                condition=Q(state__in=BundleState.values) & (Q(failure="") & ~Q(state=BundleState.FAILED))
                | Q(failure__in=BundleFailure.values, state=BundleState.FAILED),
                name="bundle_state_known",
            ),
            models.CheckConstraint(condition=Q(from_at__lt=F("to_at")), name="bundle_period"),
            models.CheckConstraint(
                condition=Q(state__in=OPEN_BUNDLE_STATES, finished_at__isnull=True)
                | (~Q(state__in=OPEN_BUNDLE_STATES) & Q(finished_at__isnull=False)),
                name="bundle_finished_with_time",
            ),
            models.CheckConstraint(
                condition=~Q(state=BundleState.READY)
                | Q(
                    made_at__isnull=False,
                    complete_to__isnull=False,
                    charged_nanos__isnull=False,
                    size_bytes__gt=0,
                    sha256__regex=r"^[0-9a-f]{64}$",
                )
                & ~Q(key_id=""),
                name="bundle_ready_whole",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="bundle_tenant"),
            models.Index(
                fields=["touched_at"], condition=Q(state__in=OPEN_BUNDLE_STATES), name="bundle_open"
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["bundle"], self.id)


class BillBundlePart(models.Model):
    """A piece of the file. The web process that sends it need not run where it was made."""

    pk = models.CompositePrimaryKey("bundle_id", "ordinal")
    # The constraint is composite, with the tenant: see the migration.
    bundle = models.ForeignKey(
        BillBundle, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    ordinal = models.PositiveIntegerField()
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    content = models.BinaryField()

    objects = TenantManager()

    class Meta:
        indexes = [models.Index(fields=["tenant"], name="bundlepart_tenant")]

    def __str__(self) -> str:
        return f"{public_id(PREFIXES['bundle'], self.bundle_id)} {self.ordinal}"
