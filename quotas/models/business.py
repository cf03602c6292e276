"""What each hour of the fleet cost, who used it, and what it earned.

An hour is written as a whole and never edited: whoever computes it anew deletes its AllocatedHour, and the
rest goes with it. Checked by the database (sql/business.sql), to the nano-unit:

- a pool's cost = the costs of its deployments + what is reserved for nobody (`unreserved_nanos`);
- a deployment's cost = what its requests cost + what nobody bought (`idle_nanos`).

Hours are those of admission, as in the usage rollups.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models import CatalogModel, Deployment, ServingBackend, ServingPool
from tenants.models import Tenant
from tenants.scope import TenantManager


class AllocatedHour(models.Model):
    """An hour (UTC) whose costs have been given to requests.

    Costs are counted until `covered_until`. Until the hour is final, it is computed anew by every run;
    afterwards only when `mark`, which stands for all that it rests on, is not what it was.
    """

    hour = models.DateTimeField(primary_key=True)
    covered_until = models.DateTimeField()
    is_final = models.BooleanField()
    mark = models.CharField(max_length=100)
    allocated_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["hour"], condition=Q(is_final=False), name="allocatedhour_open"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(covered_until__gt=F("hour")), name="allocatedhour_covers_something"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H}"


class PoolHour(models.Model):
    """What a pool cost in an hour. Without a cost version it has no currency and costs nothing."""

    pk = models.CompositePrimaryKey("hour", "pool_id")
    # Of an AllocatedHour, and gone with it: see the migration.
    hour = models.DateTimeField()
    pool = models.ForeignKey(ServingPool, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3, blank=True)
    cost_nanos = models.BigIntegerField()
    unreserved_nanos = models.BigIntegerField(help_text="The cost of the share that is reserved for nobody.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(unreserved_nanos__gte=0) & Q(unreserved_nanos__lte=F("cost_nanos")),
                name="poolhour_parts_within_whole",
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$") | Q(currency="", cost_nanos=0),
                name="poolhour_cost_has_currency",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H}"


class DeploymentHour(models.Model):
    """A deployment's share of its pool's cost in an hour, and how much of it was sold.

    Where it stood in that hour is remembered: later moves do not change the past. Weighted tokens are in
    thousandths. Without a certified capacity in that hour `capacity` is 0.
    """

    pk = models.CompositePrimaryKey("hour", "deployment_id")
    hour = models.DateTimeField()
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="+", db_index=False)
    # The pool of a PoolHour of the same hour: see the migration.
    pool = models.ForeignKey(ServingPool, on_delete=models.PROTECT, related_name="+", db_index=False)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="+", db_index=False)
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="+", db_index=False)
    capacity = models.BigIntegerField(help_text="Certified weighted tokens of the hour, in thousandths.")
    weighted = models.BigIntegerField(help_text="Weighted tokens that were served, in thousandths.")
    cost_nanos = models.BigIntegerField()
    idle_nanos = models.BigIntegerField(help_text="The cost of what was reserved and not sold.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(idle_nanos__gte=0) & Q(idle_nanos__lte=F("cost_nanos")),
                name="deploymenthour_parts_within_whole",
            ),
            models.CheckConstraint(
                condition=Q(capacity__gte=0, weighted__gte=0), name="deploymenthour_tokens_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H}"


class BusinessHour(models.Model):
    """What one organization used of a deployment in an hour, what it paid for that, and what it cost.

    Tokens are those that the deployment served (sql/served.sql). Revenue is what was charged and not
    granted; the rest of what was charged, and what was served beyond the hold, stand beside it. The
    currency is the organization's, that of the cost the pool's. `uncosted_requests`: of them no cost is
    known, because pool or deployment had none entered.
    """

    pk = models.CompositePrimaryKey("hour", "deployment_id", "tenant_id")
    hour = models.DateTimeField()
    # Of a DeploymentHour of the same hour, and of a tenant with this currency: see the migration.
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="+", db_index=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    requests = models.BigIntegerField()
    uncosted_requests = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField(help_text="With the cached ones.")
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    weighted = models.BigIntegerField(help_text="In thousandths of a weighted token.")
    currency = models.CharField(max_length=3)
    revenue_nanos = models.BigIntegerField()
    granted_nanos = models.BigIntegerField()
    overrun_nanos = models.BigIntegerField()
    cost_nanos = models.BigIntegerField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    revenue_nanos__gte=0, granted_nanos__gte=0, overrun_nanos__gte=0, cost_nanos__gte=0
                ),
                name="businesshour_amounts_positive",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "hour"], name="businesshour_tenant_hour")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H}"
