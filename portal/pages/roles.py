"""Roles and what they may do, in words."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from django.utils.translation import gettext, gettext_lazy

from tenants.models import Role
from tenants.permissions import DESCRIPTIONS, Permission, may

ROLE_NAMES: Final = MappingProxyType(
    {
        Role.OWNER: gettext_lazy("Owner"),
        Role.ADMIN: gettext_lazy("Admin"),
        Role.DEVELOPER: gettext_lazy("Developer"),
        Role.BILLING: gettext_lazy("Billing"),
        Role.VIEWER: gettext_lazy("Viewer"),
    }
)


@dataclass(frozen=True, slots=True)
class PermissionRow:
    """One thing to do, and for each role, in the order of Role, whether it may."""

    description: str
    allowed: tuple[bool, ...]


def permission_table() -> list[PermissionRow]:
    """What every role may do, in the language of the request."""
    return [
        PermissionRow(gettext(DESCRIPTIONS[permission]), tuple(may(role, permission) for role in Role))
        for permission in Permission
    ]
