"""Prices: immutable versions, effective-dated without overlap, and the lines of each.

Amounts are nano-units of the version's currency per million units of the line's class.
"""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import IntegerRangeField
from django.db import models
from django.db.models import Q

from models_catalog.models.catalog import CatalogModel
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import Tenant, User
from tenants.scope import TenantManager

# The dearest price a line may have: 1,000 units per million tokens. With the bound on context sizes
# it keeps every product of the pricing functions inside 64 bits.
MAX_PRICE_NANOS_PER_MILLION = 1_000 * 10**9


class TokenClass(models.TextChoices):
    INPUT = "input"
    CACHED_INPUT = "cached_input"
    OUTPUT = "output"
    REASONING = "reasoning"
    IMAGE = "image"
    REQUEST = "request"


class ServiceTier(models.TextChoices):
    STANDARD = "standard"
    BATCH = "batch"
    RESERVED = "reserved"


class PriceVersion(models.Model):
    """What a model costs in one currency during one period; for one tenant when `tenant` is set.

    A draft may be edited. A published version is frozen by a trigger, save that its open end may be
    set to a moment that has not passed. Published versions of one model, currency and tenant never
    overlap (exclusion constraint).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="price_versions")
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    time_zone = models.CharField(max_length=64, default="UTC", help_text="IANA name; windows are in it.")
    active_from = models.DateTimeField()
    active_to = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())
    # Nobody where a catalog file did it.
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    published_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="price_currency_code"),
            models.CheckConstraint(
                condition=Q(active_to__isnull=True) | Q(active_to__gte=models.F("active_from")),
                name="price_period_forward",
            ),
            models.CheckConstraint(
                condition=Q(published_by__isnull=True) | Q(published_at__isnull=False),
                name="price_publisher_published",
            ),
        ]
        indexes = [
            models.Index(fields=["model", "currency"], condition=Q(published_at=None), name="price_drafts"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["price"], self.id)


class PriceWindow(models.Model):
    """A named part of the week of one version, such as off-peak."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="windows")
    name = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "name"], name="window_name_once"),
            models.UniqueConstraint(fields=["version", "id"], name="window_version_id"),
        ]

    def __str__(self) -> str:
        return self.name


class PriceWindowSpan(models.Model):
    """Minutes of the week (Monday 00:00 = 0, up to 10,080, half-open) in the version's time zone.

    Spans of one version never overlap, so at most one window is open at any moment.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+")
    window = models.ForeignKey(
        PriceWindow, on_delete=models.PROTECT, related_name="spans", db_constraint=False
    )
    minutes = IntegerRangeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(minutes__contained_by=(0, 10_080)) & Q(minutes__isempty=False),
                name="span_within_week",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.minutes}"


class PriceLine(models.Model):
    """The price of one token class, for a service tier, an input-length band and a window."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="lines")
    token_class = models.CharField(max_length=16, choices=TokenClass)
    service_tier = models.CharField(max_length=16, choices=ServiceTier, default=ServiceTier.STANDARD)
    window = models.ForeignKey(
        PriceWindow,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="lines",
        db_constraint=False,
    )
    input_from_tokens = models.PositiveIntegerField(default=0)
    input_to_tokens = models.PositiveIntegerField(null=True, blank=True)
    price_nanos_per_million = models.BigIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(price_nanos_per_million__gte=0)
                & Q(price_nanos_per_million__lte=MAX_PRICE_NANOS_PER_MILLION),
                name="line_price_bounded",
            ),
            models.CheckConstraint(condition=Q(token_class__in=TokenClass.values), name="line_class_known"),
            models.CheckConstraint(condition=Q(service_tier__in=ServiceTier.values), name="line_tier_known"),
            models.CheckConstraint(
                condition=Q(input_to_tokens__isnull=True)
                | Q(input_to_tokens__gt=models.F("input_from_tokens")),
                name="line_band_forward",
            ),
        ]

    def __str__(self) -> str:
        return public_id("pln", self.id)


class PriceNoticeKind(models.TextChoices):
    NEW_PRICE = "NEW_PRICE"  # a version that is dearer than what came before
    PRIVATE_END = "PRIVATE_END"  # a private price ends, and the list is dearer
    WITHDRAWN = "WITHDRAWN"  # a version that was announced will not come


class PriceNotice(models.Model):
    """An organization has to hear by mail that something gets dearer. Commits with the change itself; a
    task turns it into mails.

    version: what is published, ended or withdrawn. before: what the organization paid until then.
    mails: to how many people it went.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    version = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+")
    before = models.ForeignKey(
        PriceVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    kind = models.CharField(max_length=16, choices=PriceNoticeKind)
    takes_effect_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=models.functions.Now())
    next_attempt_at = models.DateTimeField()
    mailed_at = models.DateTimeField(null=True, blank=True)
    mails = models.PositiveSmallIntegerField(default=0)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "tenant", "kind", "takes_effect_at"], name="pricenotice_once"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=PriceNoticeKind.values), name="pricenotice_kind_known"
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"], condition=Q(mailed_at__isnull=True), name="pricenotice_due"
            ),
        ]

    def __str__(self) -> str:
        return f"notice of {self.version}"
