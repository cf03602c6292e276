"""WHO uses the portal: people, organizations, memberships and the credentials of programs."""

from tenants.models.audit import ActorKind, AuditEvent, AuditOutcome, TenantNote
from tenants.models.invitations import Invitation, TermsAcceptance
from tenants.models.keys import ApiKey, KeyPurpose
from tenants.models.mail import OutboxMessage
from tenants.models.management import (
    MAX_IDEMPOTENCY_KEY_LENGTH,
    MAX_OPERATOR_KEY_DAYS,
    OPERATOR_SCOPES,
    TENANT_SCOPES,
    IdempotentWrite,
    ManagementKey,
    ManagementScope,
)
from tenants.models.people import Membership, Role, SuspensionCause, Tenant, TenantState, User, UserManager

__all__ = [
    "MAX_IDEMPOTENCY_KEY_LENGTH",
    "MAX_OPERATOR_KEY_DAYS",
    "OPERATOR_SCOPES",
    "TENANT_SCOPES",
    "ActorKind",
    "ApiKey",
    "AuditEvent",
    "AuditOutcome",
    "IdempotentWrite",
    "Invitation",
    "KeyPurpose",
    "ManagementKey",
    "ManagementScope",
    "Membership",
    "OutboxMessage",
    "Role",
    "SuspensionCause",
    "Tenant",
    "TenantNote",
    "TenantState",
    "TermsAcceptance",
    "User",
    "UserManager",
]
