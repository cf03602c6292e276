"""People, organizations, and who belongs to which."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.scope import TenantManager, TenantSelfManager


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self.db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Signs in with an e-mail address; belongs to organizations through memberships."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(max_length=254, unique=True)
    full_name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    date_joined = models.DateTimeField(db_default=models.functions.Now())

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            # One spelling an address, so that uniqueness means what people think it means.
            models.CheckConstraint(condition=Q(email=Lower("email")), name="user_email_lower"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["user"], self.id)


class TenantState(models.TextChoices):
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CLOSED = "CLOSED"


class SuspensionCause(models.TextChoices):
    """Why the system suspended an organization itself. It resumes only what it suspended for that cause."""

    RECEIVABLE = "RECEIVABLE"  # owes what was paid back to its payers


class Tenant(models.Model):
    """A customer. Everything a customer owns carries its id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=16, choices=TenantState, default=TenantState.ACTIVE)
    state_reason = models.CharField(max_length=500, blank=True)
    cuts_calls = models.BooleanField(
        default=False, db_default=False, help_text="While suspended: calls in flight are cut, not finished."
    )
    suspension_cause = models.CharField(
        max_length=16,
        choices=SuspensionCause,
        blank=True,
        default="",
        db_default="",
        help_text="Of an automatic suspension; empty for an operator's, which only an operator lifts.",
    )
    currency = models.CharField(max_length=3, help_text="Currency of the wallet; never changes.")
    created_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantSelfManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=TenantState.values), name="tenant_state_known"),
            models.CheckConstraint(
                condition=Q(suspension_cause="")
                | Q(suspension_cause__in=SuspensionCause.values, state=TenantState.SUSPENDED),
                name="tenant_suspended_for_cause",
            ),
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="tenant_currency_code"),
            # The target of the wallet's foreign key: a wallet has its tenant's currency for good.
            models.UniqueConstraint(fields=["id", "currency"], name="tenant_id_currency"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["organization"], self.id)


class Role(models.TextChoices):
    OWNER = "OWNER"
    ADMIN = "ADMIN"
    DEVELOPER = "DEVELOPER"
    BILLING = "BILLING"
    VIEWER = "VIEWER"


class Membership(models.Model):
    """A person in an organization, with one role."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["membership"], self.id)
