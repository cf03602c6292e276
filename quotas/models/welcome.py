"""Welcome credit: promised when an organization is opened, given once."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.kit.ids import PREFIXES, public_id
from tenants.models import Tenant, User
from tenants.scope import TenantManager


class WelcomeState(models.TextChoices):
    WAITING = "WAITING"  # for the person to verify an e-mail address
    HELD = "HELD"  # for an operator
    GIVEN = "GIVEN"
    REFUSED = "REFUSED"


class WelcomeGrant(models.Model):
    """The welcome credit of one organization, and what became of it.

    Once an organization and once a user, by key; once a person: `person_key` is the SHA-256 of the
    normalised address that the person verified (quotas.welcome.policy), and is claimed when the credit is
    given or held, not earlier, so that nobody loses theirs to a stranger who signs up with their address.
    A credit that an operator refuses keeps its claim. `decided_by` is empty when the policy decided.
    A trigger lets the state move from WAITING to HELD to GIVEN or REFUSED only. Written by
    quotas.operations.
    """

    tenant = models.OneToOneField(
        Tenant, primary_key=True, on_delete=models.PROTECT, related_name="welcome_grant"
    )
    user = models.OneToOneField(User, on_delete=models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    amount_nanos = models.BigIntegerField()
    lasts_days = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="0: for ever.")
    state = models.CharField(max_length=16, choices=WelcomeState, default=WelcomeState.WAITING)
    reason = models.CharField(max_length=200, blank=True, help_text="Why it is held or was refused.")
    person_key = models.BinaryField(max_length=32, null=True, blank=True, unique=True)
    email_domain = models.CharField(max_length=253, blank=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="welcome_amount_positive"),
            models.CheckConstraint(condition=Q(state__in=WelcomeState.values), name="welcome_state_known"),
            models.CheckConstraint(
                condition=Q(state=WelcomeState.REFUSED)
                | Q(state=WelcomeState.WAITING, person_key__isnull=True)
                | Q(state__in=[WelcomeState.HELD, WelcomeState.GIVEN], person_key__isnull=False),
                name="welcome_person_claimed",
            ),
            models.CheckConstraint(
                condition=Q(state=WelcomeState.WAITING, decided_at__isnull=True, decided_by__isnull=True)
                | (~Q(state=WelcomeState.WAITING) & Q(decided_at__isnull=False)),
                name="welcome_decided",
            ),
        ]
        indexes = [
            models.Index(
                fields=["decided_at"],
                condition=Q(state=WelcomeState.GIVEN, decided_by__isnull=True),
                name="welcome_given_lately",
            ),
            models.Index(fields=["created_at"], condition=Q(state=WelcomeState.HELD), name="welcome_held"),
        ]

    def __str__(self) -> str:
        return f"welcome credit of {public_id(PREFIXES['organization'], self.tenant_id)}"
