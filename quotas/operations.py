"""Writes that concern an organization as a whole: opening it, its welcome credit, and its calls."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import DatabaseError, connections, transaction
from django.db.models import Q

from portal.kit.ids import PREFIXES, public_id
from portal.kit.refusals import is_refusal
from quotas import settlement
from quotas.ledger import operations as ledger
from quotas.models import CreditLot, WelcomeGrant, WelcomeState
from quotas.welcome import policy as welcome_policy
from quotas.welcome.policy import WelcomePolicy
from tenants import operations as tenant_operations
from tenants.operations.audit import Actor, checked_reason, record
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

# Decisions about welcome credit are made one by one: each counts what the others gave.
WELCOME_LOCK = 0x51C0_0001
WELCOME_LOCK_TIMEOUT_MS = 5_000
MAX_WELCOME_REASON_LENGTH = 200


class UnknownCurrency(ValueError):
    """The installation does not sell in this currency."""


class WelcomeNotHeld(LookupError):
    """No welcome credit of this organization waits for an operator."""


@dataclass(frozen=True, slots=True)
class WelcomeCredit:
    """Free credit that a new organization has at once, in nano-units of its wallet's currency."""

    amount_nanos: int
    reason: str


@dataclass(frozen=True, slots=True)
class WelcomeOffer:
    """Free credit that a new organization gets when its owner has verified an e-mail address.

    lasts_days: what is left of it so long after it was given goes; 0 for never.
    """

    amount_nanos: int
    lasts_days: int = 0


@dataclass(frozen=True, slots=True)
class WelcomeOutcome:
    """What became of a person's welcome credit; `state` is None, and the rest empty, when none was promised.

    reason: why it is held or was refused, a word of quotas.welcome.policy or an operator's text.
    """

    state: WelcomeState | None
    tenant_id: UUID | None = None
    currency: str = ""
    amount_nanos: int = 0
    reason: str = ""


def open_tenant(
    *,
    name: str,
    currency: str,
    currencies: tuple[str, ...],
    owner_id: UUID | None,
    welcome_credit: WelcomeCredit | None = None,
    accepted_terms: str | None = None,
    welcome: WelcomeOffer | None = None,
) -> UUID:
    """The one call that makes a customer: organization, owner, wallet, terms and welcome, or nothing.

    Works under the auth role (sign-up) and the operator's; only the latter can give `welcome_credit`,
    which is there at once. accepted_terms: the version that the owner accepts with it. welcome: promised
    to the owner, once a person, and given by give_welcome_credit; both need an owner.
    Errors: UnknownCurrency, tenants.operations.InvalidName and TooManyOrganizations.
    """
    if currency not in currencies:
        raise UnknownCurrency(f"wallets are kept in {', '.join(currencies)}, not in {currency}")
    if owner_id is None and (accepted_terms is not None or welcome is not None):
        raise ValueError("terms and welcome credit are an owner's")
    with transaction.atomic(using=scope_alias()):
        tenant = tenant_operations.create_tenant(name=name, currency=currency, owner_id=owner_id)
        ledger.open_wallet(tenant_id=tenant.id, currency=currency)
        if welcome_credit is not None:
            ledger.grant_credit(
                tenant_id=tenant.id,
                amount_nanos=welcome_credit.amount_nanos,
                key=_welcome_transfer(tenant.id),
                reason=welcome_credit.reason,
            )
        if owner_id is not None and accepted_terms is not None:
            tenant_operations.accept_terms(user_id=owner_id, version=accepted_terms, tenant_id=tenant.id)
        if owner_id is not None and welcome is not None:
            # Somebody who was promised one with an earlier organization is promised no other.
            WelcomeGrant.objects.bulk_create(
                [
                    WelcomeGrant(
                        tenant_id=tenant.id,
                        user_id=owner_id,
                        currency=currency,
                        amount_nanos=welcome.amount_nanos,
                        lasts_days=welcome.lasts_days,
                    )
                ],
                ignore_conflicts=True,
            )
    return tenant.id


def give_welcome_credit(
    *, user_id: UUID, verified_email: str, policy: WelcomePolicy, now: datetime
) -> WelcomeOutcome:
    """Decide about the credit that a person was promised, and give it, in one transaction. As operator.

    verified_email: an address that the person has proven to have; the caller answers for that. Doors call
    this right after the verification. Safe to call again and in parallel: what is decided stays decided. So a
    call that got lost is made up for by whoever shows the organization while the credit is still WAITING and
    its owner's address is verified, such as the overview page. Errors: ValueError for what is no address.
    """
    person, domain = welcome_policy.person_key(verified_email), welcome_policy.domain_of(verified_email)
    with transaction.atomic(using=scope_alias()):
        if not WelcomeGrant.objects.filter(user_id=user_id, state=WelcomeState.WAITING).exists():
            return _outcome(WelcomeGrant.objects.filter(user_id=user_id).first())
        _lock_decisions()
        grant = WelcomeGrant.objects.select_for_update(no_key=True).get(user_id=user_id)
        if grant.state != WelcomeState.WAITING:
            return _outcome(grant)
        decision = welcome_policy.decide(policy, _facts(person, domain, now))
        is_claim = decision.state != WelcomeState.REFUSED
        _note(grant, decision.state, decision.reason, now, person=person if is_claim else None, domain=domain)
    return _outcome(grant)


def approve_welcome(*, tenant_id: UUID, actor: Actor, now: datetime, reason: str = "") -> WelcomeOutcome:
    """An operator gives a credit that was held. As operator. Errors: WelcomeNotHeld."""
    with transaction.atomic(using=scope_alias()):
        grant = _held(tenant_id)
        _note(grant, WelcomeState.GIVEN, "", now, operator_id=actor.user_id)
        _record_welcome(actor, "welcome.approve", grant, reason)
    return _outcome(grant)


def refuse_welcome(*, tenant_id: UUID, actor: Actor, reason: str, now: datetime) -> WelcomeOutcome:
    """An operator refuses a credit that was held; the person gets no other. As operator.

    reason: at most 200 characters; the organization sees it. Errors: WelcomeNotHeld, ReasonMissing (of
    tenants.operations.audit).
    """
    reason = checked_reason(reason)[:MAX_WELCOME_REASON_LENGTH]
    with transaction.atomic(using=scope_alias()):
        grant = _held(tenant_id)
        _note(grant, WelcomeState.REFUSED, reason, now, operator_id=actor.user_id)
        _record_welcome(actor, "welcome.refuse", grant, reason)
    return _outcome(grant)


def sweep_expired_holds(*, lease_s: int) -> settlement.SweepReport:
    """Resolve every hold whose lease is over. Safe to run twice and beside itself."""
    with role_scope("dataplane"):
        return settlement.sweep_expired_holds(lease_s=lease_s)


def expire_credit(*, now: datetime) -> int:
    """Take back what has expired of all organizations' free credit; of how many some went. Safe to run twice
    and beside itself; what calls under way hold goes at a later run."""
    gone = 0
    with role_scope("operator"):
        due = CreditLot.objects.filter(left_nanos__gt=0, expires_at__lte=now)
        for tenant_id in list(due.order_by("tenant_id").values_list("tenant_id", flat=True).distinct()):
            try:
                gone += ledger.expire_lots(tenant_id=tenant_id) > 0
            except DatabaseError as error:
                if not is_refusal(error):
                    raise
                # One that cannot be done keeps nobody behind it.
                logger.error(
                    "quotas.credit.not_expired",
                    extra={"organization": str(tenant_id), "reason": type(error.__cause__).__name__},
                )
    return gone


def make_partitions(*, days_ahead: int = 7) -> int:
    """Make the daily partitions up to `days_ahead` days ahead; how many were new."""
    with role_scope("dataplane"), connections["dataplane"].cursor() as cursor:
        cursor.execute("SELECT quotas_make_partitions(%s)", (days_ahead,))
        return int(cursor.fetchone()[0])


def _welcome_transfer(tenant_id: UUID) -> str:
    # One key for both ways of giving it, so that the ledger itself refuses a second one.
    return f"welcome:{tenant_id}"


def _lock_decisions() -> None:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{WELCOME_LOCK_TIMEOUT_MS}ms"])
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [WELCOME_LOCK])


def _facts(person: bytes, domain: str, now: datetime) -> welcome_policy.WelcomeFacts:
    given = WelcomeGrant.objects.filter(state=WelcomeState.GIVEN, decided_by=None)
    owned = welcome_policy.owned_domain(domain)
    return welcome_policy.WelcomeFacts(
        domain=domain,
        has_claimed=WelcomeGrant.objects.filter(person_key=person).exists(),
        given_to_domain_today=given.filter(
            Q(email_domain=owned) | Q(email_domain__endswith=f".{owned}"),
            decided_at__gt=now - timedelta(days=1),
        ).count(),
        given_this_hour=given.filter(decided_at__gt=now - timedelta(hours=1)).count(),
    )


def _held(tenant_id: UUID) -> WelcomeGrant:
    held = WelcomeGrant.objects.select_for_update(no_key=True)
    grant = held.filter(tenant_id=tenant_id, state=WelcomeState.HELD).first()
    if grant is None:
        raise WelcomeNotHeld("no welcome credit of this organization waits for an operator")
    return grant


def _record_welcome(actor: Actor, action: str, grant: WelcomeGrant, reason: str) -> None:
    record(
        actor=actor,
        action=action,
        tenant_id=grant.tenant_id,
        target=public_id(PREFIXES["organization"], grant.tenant_id),
        before={"state": WelcomeState.HELD.value},
        after={"state": str(grant.state), "amount_nanos": grant.amount_nanos, "currency": grant.currency},
        reason=reason,
    )


def _note(
    grant: WelcomeGrant,
    state: WelcomeState,
    reason: str,
    now: datetime,
    *,
    person: bytes | None = None,
    domain: str = "",
    operator_id: UUID | None = None,
) -> None:
    """Write the decision about a locked grant down, and post the credit with it."""
    grant.state, grant.reason, grant.decided_at, grant.decided_by_id = state, reason, now, operator_id
    changed = ["state", "reason", "decided_at", "decided_by"]
    if operator_id is None:
        grant.person_key, grant.email_domain = person, domain
        changed += ["person_key", "email_domain"]
    grant.save(update_fields=changed)
    if state == WelcomeState.GIVEN:
        ledger.grant_credit(
            tenant_id=grant.tenant_id,
            amount_nanos=grant.amount_nanos,
            key=_welcome_transfer(grant.tenant_id),
            reason="Welcome credit",
            expires_at=now + timedelta(days=grant.lasts_days) if grant.lasts_days else None,
        )


def _outcome(grant: WelcomeGrant | None) -> WelcomeOutcome:
    if grant is None:
        return WelcomeOutcome(None)
    return WelcomeOutcome(
        WelcomeState(grant.state), grant.tenant_id, grant.currency, grant.amount_nanos, grant.reason
    )
