"""Whom an organization's invoices are made out to: its members say it, an operator verifies it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from portal.kit.ids import PREFIXES, public_id
from quotas.models import BillingProfile, ProfileState
from quotas.payments.bank_mails import mail_profile_decided
from tenants.models import ActorKind, User
from tenants.operations import audit
from tenants.scope import scope_alias

MAX_NAME_LENGTH: Final = 200
MAX_TAX_ID_LENGTH: Final = 64
MAX_TEXT_LENGTH: Final = 500
MAX_ROWS: Final = 200


class InvalidProfile(ValueError):
    """The legal name or the tax id is missing, or something is too long or cannot be printed."""


class ProfileNotFound(LookupError):
    """The organization has said nothing about itself yet."""


class ProfileChanged(ValueError):
    """The organization has changed its profile since it was looked at, or another operator has decided."""


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What an organization says about itself. address, bank_details: may be empty, several lines."""

    legal_name: str
    tax_id: str
    address: str = ""
    bank_details: str = ""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """A profile as it is stored. decision_reason: why it was refused, for its members to read."""

    tenant_id: UUID
    organization: str
    facts: ProfileFacts
    state: ProfileState
    changed_by_email: str
    changed_at: datetime
    decided_at: datetime | None
    decision_reason: str

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_verified(self) -> bool:
        return self.state == ProfileState.VERIFIED


def save_profile(*, tenant_id: UUID, facts: ProfileFacts, actor: audit.Actor, now: datetime) -> ProfileState:
    """Write down what an organization says about itself; the state that it has then. In the tenant's scope.

    Another legal name or tax id has to be verified anew, which the database sees to. Saving what is there
    already changes nothing. Errors: InvalidProfile.
    """
    facts = _checked(facts)
    if actor.user_id is None:
        raise ValueError("a member changes the profile")
    said = {
        "legal_name": facts.legal_name,
        "tax_id": facts.tax_id,
        "address": facts.address,
        "bank_details": facts.bank_details,
    }
    with transaction.atomic(using=scope_alias()):
        known = _locked(tenant_id)
        values = {"changed_by_id": actor.user_id, "changed_at": now, **said}
        # A colleague, or a second click, may be faster: then it is theirs that is changed.
        if known is None and not _is_new(tenant_id, values):
            known = _locked(tenant_id)
        before: dict[str, str] = {}
        if known is not None:
            before = {name: getattr(known, name) for name in said}
            if before == said:
                return ProfileState(known.state)
            BillingProfile.objects.filter(tenant_id=tenant_id).update(**values)
        audit.record(
            actor=actor,
            action="billing.profile",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
            before=before,
            after=said,
        )
        state = BillingProfile.objects.values_list("state", flat=True).get(tenant_id=tenant_id)
        return ProfileState(state)


def verify_profile(
    *, tenant_id: UUID, legal_name: str, tax_id: str, actor: audit.Actor, reason: str, now: datetime
) -> None:
    """An operator has checked that name and id are the organization's. legal_name, tax_id: as they were
    looked at. Errors: ReasonMissing, ProfileNotFound, ProfileChanged."""
    reason = audit.checked_reason(reason)
    _decide(tenant_id, legal_name, tax_id, ProfileState.VERIFIED, actor, reason, now)


def refuse_profile(
    *, tenant_id: UUID, legal_name: str, tax_id: str, actor: audit.Actor, reason: str, now: datetime
) -> None:
    """The same, when they are not; also of one that was verified. reason: its members read it."""
    reason = audit.checked_reason(reason)
    _decide(tenant_id, legal_name, tax_id, ProfileState.REFUSED, actor, reason, now)


def profile_of(*, tenant_id: UUID) -> ProfileRow | None:
    """What the organization says about itself, or None."""
    return next(iter(_rows(BillingProfile.objects.filter(tenant_id=tenant_id))), None)


def waiting_profiles() -> list[ProfileRow]:
    """Those that wait for an operator, oldest first, at most MAX_ROWS. As operator."""
    waiting = BillingProfile.objects.filter(state=ProfileState.UNVERIFIED)
    return _rows(waiting.order_by("changed_at")[:MAX_ROWS])


def _locked(tenant_id: UUID) -> BillingProfile | None:
    return BillingProfile.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()


def _is_new(tenant_id: UUID, values: dict[str, Any]) -> bool:
    """Whether it is the organization's first one, and stored."""
    try:
        with transaction.atomic(using=scope_alias()):
            BillingProfile.objects.create(tenant_id=tenant_id, **values)
    except IntegrityError:
        if not BillingProfile.objects.filter(tenant_id=tenant_id).exists():
            raise
        return False
    return True


def _decide(
    tenant_id: UUID,
    legal_name: str,
    tax_id: str,
    state: ProfileState,
    actor: audit.Actor,
    reason: str,
    now: datetime,
) -> None:
    if actor.kind != ActorKind.OPERATOR or actor.user_id is None:
        raise ValueError("profiles are verified by operators")
    with transaction.atomic(using=scope_alias()):
        profile = _locked(tenant_id)
        if profile is None:
            raise ProfileNotFound("the organization has no billing profile")
        if (profile.legal_name, profile.tax_id) != (legal_name, tax_id) or profile.state == state:
            raise ProfileChanged("the profile is another one by now")
        before = profile.state
        profile.state, profile.decided_by_id, profile.decided_at = state, actor.user_id, now
        profile.decision_reason = reason
        profile.save(update_fields=["state", "decided_by", "decided_at", "decision_reason"])
        is_verified = state == ProfileState.VERIFIED
        audit.record(
            actor=actor,
            action="billing.verify" if is_verified else "billing.refuse",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
            before={"state": str(before)},
            after={"state": str(state), "legal_name": legal_name, "tax_id": tax_id},
            reason=reason,
            is_internal=is_verified,
        )
        mail_profile_decided(profile=profile, is_verified=is_verified, now=now)


def _checked(facts: ProfileFacts) -> ProfileFacts:
    name, tax_id = (" ".join(text.split()) for text in (facts.legal_name, facts.tax_id))
    texts = [
        "\n".join(line.strip() for line in text.strip().splitlines())
        for text in (facts.address, facts.bank_details)
    ]
    if not (0 < len(name) <= MAX_NAME_LENGTH and 0 < len(tax_id) <= MAX_TAX_ID_LENGTH):
        raise InvalidProfile("a legal name and a tax id are needed")
    if any(len(text) > MAX_TEXT_LENGTH for text in texts):
        raise InvalidProfile(f"addresses and bank details have at most {MAX_TEXT_LENGTH} characters")
    if any(
        unicodedata.category(sign)[0] == "C"
        for text in (name, tax_id, *texts)
        for sign in text
        if sign != "\n"
    ):
        raise InvalidProfile("only what can be printed stands on an invoice")
    return ProfileFacts(name, tax_id, *texts)


def _rows(profiles: QuerySet[BillingProfile]) -> list[ProfileRow]:
    # A join would hide what somebody changed who has left the organization since.
    email = Subquery(User.objects.filter(id=OuterRef("changed_by_id")).values("email"))
    found = profiles.annotate(organization=F("tenant__name"), changed_by_email=Coalesce(email, Value("")))
    return [
        ProfileRow(
            tenant_id=one.tenant_id,
            organization=one.organization,
            facts=ProfileFacts(one.legal_name, one.tax_id, one.address, one.bank_details),
            state=ProfileState(one.state),
            changed_by_email=one.changed_by_email,
            changed_at=one.changed_at,
            decided_at=one.decided_at,
            decision_reason=one.decision_reason,
        )
        for one in found
    ]
