"""Organizations: opening and naming."""

import re
from uuid import UUID

from tenants.models import Membership, Role, Tenant

MAX_NAME_LENGTH = 200
# More than anybody needs, and few enough that nobody fills the table with them.
MAX_ORGANIZATIONS_PER_OWNER = 50

_LINK = re.compile(r"://|www\.", re.IGNORECASE)


class InvalidName(ValueError):
    """A name is empty, too long, not printable, or has a link in it."""


class OrganizationNotFound(LookupError):
    """No such organization in this scope."""


class TooManyOrganizations(ValueError):
    """The person owns as many organizations as one may."""


def create_tenant(*, name: str, currency: str, owner_id: UUID | None) -> Tenant:
    """A new organization, with its owner when there is one. Errors: InvalidName, TooManyOrganizations."""
    name = checked_name(name=name)
    if owner_id is not None:
        owned = Membership.objects.filter(user_id=owner_id, role=Role.OWNER).count()
        if owned >= MAX_ORGANIZATIONS_PER_OWNER:
            raise TooManyOrganizations(f"a person owns at most {MAX_ORGANIZATIONS_PER_OWNER} organizations")
    tenant = Tenant.objects.create(name=name, currency=currency)
    if owner_id is not None:
        Membership.objects.create(tenant=tenant, user_id=owner_id, role=Role.OWNER)
    return tenant


def rename_tenant(*, tenant_id: UUID, name: str) -> None:
    """Give an organization another name. Errors: InvalidName, OrganizationNotFound."""
    if Tenant.objects.filter(id=tenant_id).update(name=checked_name(name=name)) != 1:
        raise OrganizationNotFound("no such organization")


def lock_tenant(tenant_id: UUID) -> Tenant:
    """The organization, locked until the transaction ends: who changes its members does so one by one.

    Errors: OrganizationNotFound.
    """
    tenant = Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id).first()
    if tenant is None:
        raise OrganizationNotFound("no such organization")
    return tenant


def checked_name(*, name: str) -> str:
    """The name of a person or an organization, in one line. Errors: InvalidName."""
    # Names stand in subjects of mails and in tables: line breaks and direction marks have no place there,
    # and a link in one would make an invitation an advertisement that we send.
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable() or _LINK.search(name):
        raise InvalidName(f"a name has 1 to {MAX_NAME_LENGTH} printable characters and no link in it")
    return name
