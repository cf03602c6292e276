"""docs/roles.md, rendered from what the product asks: tenants.permissions."""

from types import MappingProxyType
from typing import Final

from tenants.models import Role
from tenants.permissions import DESCRIPTIONS, Permission, may

ROLE_WORDS: Final = MappingProxyType(
    {
        Role.OWNER: "Owner 所有者",
        Role.ADMIN: "Admin 管理员",
        Role.DEVELOPER: "Developer 开发者",
        Role.BILLING: "Billing 财务",
        Role.VIEWER: "Viewer 只读成员",
    }
)

_HEAD: Final = """# Roles

What a member of an organization may do, by role. Made from `tenants/permissions.py` by
`python manage.py role_table > docs/roles.md`; a test compares the two.
"""

_TAIL: Final = """
- An organization always has an owner; the last one can neither leave nor become something else.
- Only who may manage the organization makes and unmakes owners, by role or by invitation.
- Who is removed, or leaves, is out at their next request, and their playground stops with them. API keys
  that they made belong to the organization and go on; management keys act in their name and end with them.
- Whoever is not a member gets the answer 404, as for what does not exist; a member without the right, 403.
"""


def render_role_table() -> str:
    """The whole text of docs/roles.md."""
    rows = [
        ["", *(ROLE_WORDS[role] for role in Role)],
        ["---", *(":---:" for _ in Role)],
        *(
            [DESCRIPTIONS[permission], *("✓" if may(role, permission) else "–" for role in Role)]
            for permission in Permission
        ),
    ]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    return f"{_HEAD}\n{table}{_TAIL}"
