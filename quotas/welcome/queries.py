"""Reads of welcome credits."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from portal.kit.ids import PREFIXES, public_id
from quotas.models import WelcomeGrant, WelcomeState

MAX_ROWS = 500


@dataclass(frozen=True, slots=True)
class WelcomeRow:
    """An organization's welcome credit, in nano-units of `currency`. reason: a word of quotas.welcome.policy,
    or an operator's text."""

    tenant_id: UUID
    currency: str
    amount_nanos: int
    state: WelcomeState
    reason: str
    created_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldWelcome:
    """A welcome credit that waits for an operator."""

    tenant_id: UUID
    organization: str
    user_email: str
    email_domain: str
    currency: str
    amount_nanos: int
    reason: str
    created_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)


def welcome_of(*, tenant_id: UUID) -> WelcomeRow | None:
    """What became of an organization's welcome credit; None when it was promised none."""
    row = (
        WelcomeGrant.objects.filter(tenant_id=tenant_id)
        .values_list("tenant_id", "currency", "amount_nanos", "state", "reason", "created_at", "decided_at")
        .first()
    )
    if row is None:
        return None
    found_id, currency, amount_nanos, state, reason, created_at, decided_at = row
    return WelcomeRow(found_id, currency, amount_nanos, WelcomeState(state), reason, created_at, decided_at)


def count_held_welcomes() -> int:
    """How many wait for an operator, counted no further than MAX_ROWS. As operator."""
    return WelcomeGrant.objects.filter(state=WelcomeState.HELD)[:MAX_ROWS].count()


def held_welcomes() -> list[HeldWelcome]:
    """What waits for an operator, oldest first, at most MAX_ROWS. As operator."""
    grants = (
        WelcomeGrant.objects.select_related("tenant", "user")
        .defer("user__password")
        .filter(state=WelcomeState.HELD)
        .order_by("created_at")[:MAX_ROWS]
    )
    return [
        HeldWelcome(
            tenant_id=grant.tenant_id,
            organization=grant.tenant.name,
            user_email=grant.user.email,
            email_domain=grant.email_domain,
            currency=grant.currency,
            amount_nanos=grant.amount_nanos,
            reason=grant.reason,
            created_at=grant.created_at,
        )
        for grant in grants
    ]
