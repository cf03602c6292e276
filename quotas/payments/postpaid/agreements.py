"""An operator lets an organization that has a credit line pay afterwards, or ends that."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import MAX_DAYS_UNTIL_DUE, PostpaidAgreement, Wallet
from tenants.operations import audit
from tenants.scope import scope_alias


class NoSuchOrganization(LookupError):
    """There is no such organization."""


class NoCreditLine(ValueError):
    """The organization has no credit line, so it cannot pay afterwards."""


class InvalidTerms(ValueError):
    """The days until an invoice is due are not between 0 and MAX_DAYS_UNTIL_DUE."""


class NoAgreement(LookupError):
    """The organization has no agreement that could be ended."""


def agree(
    *, tenant_id: UUID, days_until_due: int, reason: str, actor: audit.Actor, now: datetime
) -> PostpaidAgreement:
    """Invoice an organization monthly from now on, or change when invoices are due. As operator.

    What was used since the agreement first began stands on its next invoice, also where it was ended
    meanwhile. Errors: ReasonMissing (of tenants.operations.audit), NoSuchOrganization, NoCreditLine,
    InvalidTerms.
    """
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    if not 0 <= days_until_due <= MAX_DAYS_UNTIL_DUE:
        raise InvalidTerms(f"an invoice is due within {MAX_DAYS_UNTIL_DUE} days")
    with transaction.atomic(using=scope_alias()):
        wallet = Wallet.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()
        if wallet is None:
            raise NoSuchOrganization("there is no such organization")
        if wallet.overdraft_nanos <= 0:
            raise NoCreditLine("the organization has no credit line")
        agreement = _locked(tenant_id)
        before = _facts(agreement)
        terms = {
            "is_on": True,
            "days_until_due": days_until_due,
            "changed_by_id": operator_id,
            "changed_at": now,
        }
        if agreement is None:
            agreement = PostpaidAgreement.objects.create(
                tenant_id=tenant_id, currency=wallet.currency, since=now, **terms
            )
        else:
            _change(agreement, terms)
        _record(actor, "postpaid.agree", agreement, before, reason)
    return agreement


def end_agreement(*, tenant_id: UUID, reason: str, actor: audit.Actor, now: datetime) -> None:
    """Draw up no more invoices. What is used until then, or owed, stays in the balance; invoices that are
    there already stay to be paid. As operator. Errors: ReasonMissing (of tenants.operations.audit),
    NoAgreement."""
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with transaction.atomic(using=scope_alias()):
        agreement = _locked(tenant_id)
        if agreement is None or not agreement.is_on:
            raise NoAgreement("the organization does not pay afterwards")
        before = _facts(agreement)
        _change(agreement, {"is_on": False, "changed_by_id": operator_id, "changed_at": now})
        _record(actor, "postpaid.end", agreement, before, reason)


def _locked(tenant_id: UUID) -> PostpaidAgreement | None:
    return PostpaidAgreement.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).first()


def _change(agreement: PostpaidAgreement, values: dict[str, object]) -> None:
    for name, value in values.items():
        setattr(agreement, name, value)
    agreement.save(update_fields=[name.removesuffix("_id") for name in values])


def _facts(agreement: PostpaidAgreement | None) -> dict[str, object]:
    if agreement is None:
        return {}
    return {"is_on": agreement.is_on, "days_until_due": agreement.days_until_due}


def _record(
    actor: audit.Actor, action: str, agreement: PostpaidAgreement, before: dict[str, object], reason: str
) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=agreement.tenant_id,
        target=public_id(PREFIXES["organization"], agreement.tenant_id),
        before=before,
        after=_facts(agreement),
        reason=reason,
        is_internal=True,
    )
