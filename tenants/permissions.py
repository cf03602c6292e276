"""What each role may do in an organization: the one source of the pages, their tests and docs/roles.md."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from django.utils.translation import gettext_noop

from tenants.models import Role


class Permission(StrEnum):
    """Something that a member may do. The value is stable; `DESCRIPTIONS` says it in words."""

    SEE_OVERVIEW = "see_overview"
    SEE_MODELS = "see_models"
    ENABLE_MODELS = "enable_models"
    SEE_KEYS = "see_keys"
    MANAGE_KEYS = "manage_keys"
    MANAGE_MANAGEMENT_KEYS = "manage_management_keys"
    USE_PLAYGROUND = "use_playground"
    SEE_USAGE = "see_usage"
    SEE_LIMITS = "see_limits"
    MANAGE_LIMITS = "manage_limits"
    SEE_BILLING = "see_billing"
    PAY = "pay"
    SEE_MEMBERS = "see_members"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_ORGANIZATION = "manage_organization"


DESCRIPTIONS: Final = MappingProxyType(
    {
        Permission.SEE_OVERVIEW: gettext_noop("See the overview and the balance"),
        Permission.SEE_MODELS: gettext_noop("See which models are enabled"),
        Permission.ENABLE_MODELS: gettext_noop("Enable and disable models"),
        Permission.SEE_KEYS: gettext_noop("See API keys (never their secrets)"),
        Permission.MANAGE_KEYS: gettext_noop("Create, change, rotate and revoke API keys"),
        Permission.MANAGE_MANAGEMENT_KEYS: gettext_noop("See, create and revoke management keys"),
        Permission.USE_PLAYGROUND: gettext_noop("Chat in the playground, which costs money"),
        Permission.SEE_USAGE: gettext_noop("See requests, tokens and their cost, and download them"),
        Permission.SEE_LIMITS: gettext_noop("See limits, what of them is used, and the tier"),
        Permission.MANAGE_LIMITS: gettext_noop("Set the organization's own limits, budgets and their alerts"),
        Permission.SEE_BILLING: gettext_noop("See the statement of account, and download it"),
        Permission.PAY: gettext_noop("Add credit, set up auto-recharge and change how it is paid"),
        Permission.SEE_MEMBERS: gettext_noop("See members and invitations"),
        Permission.MANAGE_MEMBERS: gettext_noop("Invite and remove members, and change their roles"),
        Permission.MANAGE_ORGANIZATION: gettext_noop("Rename the organization, and make or unmake owners"),
    }
)

_SEE: Final = frozenset(
    {
        Permission.SEE_OVERVIEW,
        Permission.SEE_MODELS,
        Permission.SEE_KEYS,
        Permission.SEE_USAGE,
        Permission.SEE_LIMITS,
        Permission.SEE_MEMBERS,
    }
)

PERMISSIONS: Final = MappingProxyType(
    {
        Role.OWNER: frozenset(Permission),
        Role.ADMIN: frozenset(Permission) - {Permission.MANAGE_ORGANIZATION},
        Role.DEVELOPER: _SEE | {Permission.ENABLE_MODELS, Permission.MANAGE_KEYS, Permission.USE_PLAYGROUND},
        Role.BILLING: frozenset(
            {
                Permission.SEE_OVERVIEW,
                Permission.SEE_MODELS,
                Permission.SEE_USAGE,
                Permission.SEE_LIMITS,
                Permission.SEE_BILLING,
                Permission.PAY,
                Permission.SEE_MEMBERS,
            }
        ),
        Role.VIEWER: _SEE,
    }
)


def may(role: Role | str, permission: Permission) -> bool:
    """Whether a member with this role may do this. An unknown role may do nothing."""
    return permission in PERMISSIONS.get(Role(role), frozenset()) if role in Role.values else False


def includes(role: Role | str, other: Role | str) -> bool:
    """Whether whoever has `role` may do everything that `other` may. Two roles may include neither."""
    return all(may(role, permission) for permission in Permission if may(other, permission))
