"""What pools cost and what deployments can carry. Both are effective-dated and, but for their end, frozen."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models.fleet import Deployment, ServingPool
from portal.kit.ids import PREFIXES, public_id, uuid7

# With these bounds a day of any pool costs less than 2^63 nano-units (proven by test_pool_costs.py).
MAX_ACCELERATORS = 100_000
MAX_NANOS_PER_ACCELERATOR_HOUR = 10**12
MAX_POWER_WATTS = 10**9
MIN_PUE_THOUSANDTHS, MAX_PUE_THOUSANDTHS = 1000, 10_000
MAX_NANOS_PER_KWH = 10**10

WHOLE_PPM = 1_000_000
MAX_WEIGHT_THOUSANDTHS = 1_000_000
MAX_CAPACITY_TOKENS_PER_S = 10**9


class PoolCostVersion(models.Model):
    """What a pool costs, from `active_from` until `active_to` (half-open, whole seconds); one at a time.

    The hour costs accelerators × (depreciation + other), and the power that the whole pool draws, times its
    PUE, times the price of a kWh. SQL's `catalog_pool_cost_nanos` is the only place that multiplies it out.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    pool = models.ForeignKey(ServingPool, on_delete=models.PROTECT, related_name="costs")
    currency = models.CharField(max_length=3)
    accelerators = models.PositiveIntegerField()
    depreciation_nanos_per_accelerator_hour = models.BigIntegerField()
    other_nanos_per_accelerator_hour = models.BigIntegerField(
        default=0, help_text="Rent, staff, network and all that is neither depreciation nor energy."
    )
    power_watts = models.PositiveIntegerField(help_text="Drawn by the whole pool with its hosts, before PUE.")
    pue_thousandths = models.PositiveIntegerField(
        default=MIN_PUE_THOUSANDTHS, help_text="Power usage effectiveness: 1250 is 1.25."
    )
    energy_nanos_per_kwh = models.BigIntegerField()
    owner = models.CharField(max_length=120, blank=True, help_text="Whose hardware it is.")
    region = models.CharField(max_length=64, blank=True)
    active_from = models.DateTimeField()
    active_to = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="poolcost_currency_code"),
            models.CheckConstraint(
                condition=Q(accelerators__range=(1, MAX_ACCELERATORS)), name="poolcost_accelerators_bounded"
            ),
            models.CheckConstraint(
                condition=Q(
                    depreciation_nanos_per_accelerator_hour__range=(0, MAX_NANOS_PER_ACCELERATOR_HOUR),
                    other_nanos_per_accelerator_hour__range=(0, MAX_NANOS_PER_ACCELERATOR_HOUR),
                ),
                name="poolcost_hour_bounded",
            ),
            models.CheckConstraint(
                condition=Q(
                    power_watts__range=(0, MAX_POWER_WATTS),
                    pue_thousandths__range=(MIN_PUE_THOUSANDTHS, MAX_PUE_THOUSANDTHS),
                    energy_nanos_per_kwh__range=(0, MAX_NANOS_PER_KWH),
                ),
                name="poolcost_energy_bounded",
            ),
            models.CheckConstraint(
                condition=Q(active_to=None) | Q(active_to__gte=F("active_from")),
                name="poolcost_period_forward",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["pool_cost"], self.id)


class CapacityVersion(models.Model):
    """How much of its pool a deployment has, how its tokens weigh and what it is certified to carry, from
    `active_from` until `active_to` (half-open, whole seconds); one at a time.

    Never more than the whole pool is reserved: the shares of its deployments add up to a million at most, at
    every moment. Weighted tokens are tokens × weight / 1000, summed over the classes.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="capacities")
    reserved_ppm = models.PositiveIntegerField(help_text="Share of its pool, in millionths.")
    input_weight = models.PositiveIntegerField(
        help_text="Of an input token that is not cached, in thousandths."
    )
    cached_weight = models.PositiveIntegerField(help_text="Of a cached input token, in thousandths.")
    output_weight = models.PositiveIntegerField(help_text="Of an output token, in thousandths.")
    capacity_tokens_per_s = models.PositiveIntegerField(help_text="Certified, in weighted tokens.")
    active_from = models.DateTimeField()
    active_to = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(reserved_ppm__range=(0, WHOLE_PPM)), name="capacity_share_bounded"
            ),
            models.CheckConstraint(
                condition=Q(
                    input_weight__range=(0, MAX_WEIGHT_THOUSANDTHS),
                    cached_weight__range=(0, MAX_WEIGHT_THOUSANDTHS),
                    output_weight__range=(1, MAX_WEIGHT_THOUSANDTHS),
                ),
                name="capacity_weights_bounded",
            ),
            models.CheckConstraint(
                condition=Q(capacity_tokens_per_s__range=(1, MAX_CAPACITY_TOKENS_PER_S)),
                name="capacity_speed_bounded",
            ),
            models.CheckConstraint(
                condition=Q(active_to=None) | Q(active_to__gte=F("active_from")),
                name="capacity_period_forward",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["capacity"], self.id)
