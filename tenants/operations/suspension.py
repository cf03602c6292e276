"""Suspending an organization and letting it call again, with a mail to its members."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Value, When
from django.utils import translation
from django.utils.translation import gettext as _

from portal.kit.ids import PREFIXES, public_id
from tenants.models import Membership, Role, SuspensionCause, Tenant, TenantState
from tenants.operations import audit
from tenants.operations.organizations import lock_tenant
from tenants.operations.outbox import InvalidMail, OutgoingMail, TooManyMails, enqueue_mail
from tenants.scope import scope_alias

# Owners first, then as the roles are written down; more people than this learn it from the others.
MAX_MAILS: Final = 50
_BY_ROLE = Case(*(When(role=role, then=Value(rank)) for rank, role in enumerate(Role.values)))


class NotSuspended(ValueError):
    """The organization is not suspended, so there is nothing to resume."""


class AlreadySuspended(ValueError):
    """The organization is suspended in this very way already."""


class OrganizationClosed(ValueError):
    """The organization is closed for good."""


def suspend_tenant(
    *,
    tenant_id: UUID,
    reason: str,
    cuts_calls: bool,
    actor: audit.Actor,
    now: datetime,
    cause: SuspensionCause | None = None,
) -> None:
    """Refuse every new call of an organization from its next one on, and mail its members.

    reason: its members read it. cuts_calls: calls under way are cut within a second; otherwise they finish.
    Somebody who is suspended can be suspended again to change that. cause: given by the system, whose
    suspension it may lift by itself; an operator's replaces it, it replaces no operator's. As operator.
    Errors: ReasonMissing (of tenants.operations.audit), OrganizationNotFound, OrganizationClosed,
    AlreadySuspended.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        tenant = _lock_open(tenant_id)
        was_suspended = tenant.state == TenantState.SUSPENDED
        was_automatic = tenant.suspension_cause != ""
        if was_suspended and (cause is not None or (tenant.cuts_calls == cuts_calls and not was_automatic)):
            raise AlreadySuspended("the organization is suspended already")
        _change(tenant, TenantState.SUSPENDED, reason, cuts_calls, cause, "tenant.suspend", actor, reason)
        if not was_suspended:
            _mail_members(tenant, lambda: _suspended_mail(tenant, reason, cuts_calls), now)


def resume_tenant(
    *,
    tenant_id: UUID,
    reason: str,
    actor: audit.Actor,
    now: datetime,
    cause: SuspensionCause | None = None,
) -> None:
    """Admit an organization's calls again, and mail its members. As operator.

    cause: given by the system, which lifts only its own suspension for this cause.
    Errors: ReasonMissing (of tenants.operations.audit), OrganizationNotFound, OrganizationClosed,
    NotSuspended.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        tenant = _lock_open(tenant_id)
        if tenant.state != TenantState.SUSPENDED:
            raise NotSuspended("the organization is not suspended")
        if cause is not None and tenant.suspension_cause != cause:
            raise NotSuspended("the organization is not suspended for this cause")
        _change(tenant, TenantState.ACTIVE, "", False, None, "tenant.resume", actor, reason)
        _mail_members(tenant, lambda: _resumed_mail(tenant), now)


def _lock_open(tenant_id: UUID) -> Tenant:
    tenant = lock_tenant(tenant_id)
    if tenant.state == TenantState.CLOSED:
        raise OrganizationClosed("the organization is closed")
    return tenant


def _change(
    tenant: Tenant,
    state: TenantState,
    state_reason: str,
    cuts_calls: bool,
    cause: SuspensionCause | None,
    action: str,
    actor: audit.Actor,
    reason: str,
) -> None:
    before = _facts(tenant)
    tenant.state, tenant.state_reason, tenant.cuts_calls = state, state_reason, cuts_calls
    tenant.suspension_cause = cause.value if cause else ""
    tenant.save(update_fields=["state", "state_reason", "cuts_calls", "suspension_cause"])
    audit.record(
        actor=actor,
        action=action,
        tenant_id=tenant.id,
        target=public_id(PREFIXES["organization"], tenant.id),
        before=before,
        after=_facts(tenant),
        reason=reason,
    )


def _facts(tenant: Tenant) -> dict[str, object]:
    facts: dict[str, object] = {"state": str(tenant.state), "cuts_calls": tenant.cuts_calls}
    return facts | ({"cause": str(tenant.suspension_cause)} if tenant.suspension_cause else {})


def _mail_members(tenant: Tenant, compose: Callable[[], tuple[str, str]], now: datetime) -> None:
    members = Membership.objects.filter(tenant_id=tenant.id).order_by(_BY_ROLE, "id")
    # Whoever suspends it may speak another language than its members; the installation's is their common one.
    with translation.override(settings.LANGUAGE_CODE):
        subject, text = compose()
    for address in members.values_list("user__email", flat=True)[:MAX_MAILS]:
        try:
            with transaction.atomic(using=scope_alias()):
                enqueue_mail(mail=OutgoingMail(address, subject, text), now=now, tenant_id=tenant.id)
        except TooManyMails:
            # An organization that has sent all its mails of today is suspended all the same.
            return
        except InvalidMail:
            # So is one of whose members one signed in with an address that no mail reaches.
            continue


def _suspended_mail(tenant: Tenant, reason: str, cuts_calls: bool) -> tuple[str, str]:
    calls = (
        _("Calls under way have been cut; what was delivered is charged.")
        if cuts_calls
        else _("Calls under way were allowed to finish.")
    )
    return (
        _("%(name)s is suspended") % {"name": _short(tenant.name)},
        "\n\n".join(
            [
                _("The organization %(name)s is suspended: new calls with its keys are refused.")
                % {"name": tenant.name},
                _("Reason: %(reason)s") % {"reason": reason},
                calls,
                _("Its balance, keys and settings stay as they are. Answer this mail if it is a mistake."),
            ]
        ),
    )


def _resumed_mail(tenant: Tenant) -> tuple[str, str]:
    return (
        _("%(name)s is active again") % {"name": _short(tenant.name)},
        _("The organization %(name)s is active again: calls with its keys are answered as before.")
        % {"name": tenant.name},
    )


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:99]}…"
