"""WHO uses the portal: people, organizations, memberships and the credentials of programs."""

from tenants.models.invitations import Invitation, TermsAcceptance
from tenants.models.keys import ApiKey, KeyPurpose
from tenants.models.mail import OutboxMessage
from tenants.models.people import Membership, Role, Tenant, TenantState, User, UserManager

__all__ = [
    "ApiKey",
    "Invitation",
    "KeyPurpose",
    "Membership",
    "OutboxMessage",
    "Role",
    "Tenant",
    "TenantState",
    "TermsAcceptance",
    "User",
    "UserManager",
]
