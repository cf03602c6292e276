"""Members: their roles, and their way out.

Who changes members holds the organization's row, so changes come one after the other; that an
organization keeps an owner is also a trigger's to see to.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from tenants.models import Invitation, Membership, Role
from tenants.operations.keys import NotAMember, end_playground_key
from tenants.operations.management import end_management_keys
from tenants.operations.organizations import lock_tenant
from tenants.permissions import Permission, may
from tenants.scope import scope_alias


class NotAllowed(PermissionError):
    """The person's role does not allow this."""


class MemberNotFound(LookupError):
    """No such member in this scope."""


class LastOwner(ValueError):
    """An organization keeps an owner: somebody else has to become one first."""


def change_role(
    *, tenant_id: UUID, membership_id: UUID, role: Role | str, actor_role: Role | str, now: datetime
) -> None:
    """Give a member another role. Whoever may no longer chat loses the playground's key at once, and open
    invitations that the member could not write any more are revoked, as are management keys that may more.

    actor_role: that of the person who asks; only who may manage the organization makes and unmakes owners.
    Errors: NotAllowed, OrganizationNotFound, MemberNotFound, LastOwner; ValueError for an unknown role.
    """
    role = Role(role)
    require_manager(actor_role, role)
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        member = _member(tenant_id, membership_id)
        require_manager(actor_role, Role(member.role))
        if member.role == Role.OWNER and role != Role.OWNER:
            _keep_an_owner(member)
        Membership.objects.filter(tenant_id=tenant_id, id=membership_id).update(role=role)
        if not may(role, Permission.USE_PLAYGROUND):
            end_playground_key(tenant_id, member.user_id, now)
        end_management_keys(tenant_id, member.user_id, now, role)
        _revoke_invitations(member, now, role=role)


def remove_member(*, tenant_id: UUID, membership_id: UUID, actor_role: Role | str, now: datetime) -> None:
    """End a membership, and with it the person's ways in: also the open invitations that they wrote, which
    may be to another address of theirs, and their management keys. The API keys that they made stay.

    actor_role: as for change_role. Errors: NotAllowed, OrganizationNotFound, MemberNotFound, LastOwner.
    """
    require_manager(actor_role)
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        member = _member(tenant_id, membership_id)
        require_manager(actor_role, Role(member.role))
        _end(member, now)
        _revoke_invitations(member, now)


def leave(*, tenant_id: UUID, user_id: UUID, now: datetime) -> None:
    """A member leaves by their own will. Errors: OrganizationNotFound, NotAMember, LastOwner."""
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        member = Membership.objects.filter(tenant_id=tenant_id, user_id=user_id).first()
        if member is None:
            raise NotAMember("no such member")
        _end(member, now)


def require_manager(actor_role: Role | str, *concerned: Role) -> None:
    """Errors: NotAllowed unless this role may manage members who have, or get, the roles concerned."""
    needed = {Permission.MANAGE_MEMBERS}
    if Role.OWNER in concerned:
        needed.add(Permission.MANAGE_ORGANIZATION)
    if not all(may(actor_role, permission) for permission in needed):
        raise NotAllowed("this role may not do that")


def _member(tenant_id: UUID, membership_id: UUID) -> Membership:
    member = Membership.objects.filter(tenant_id=tenant_id, id=membership_id).first()
    if member is None:
        raise MemberNotFound("no such member")
    return member


def _end(member: Membership, now: datetime) -> None:
    if member.role == Role.OWNER:
        _keep_an_owner(member)
    # First the membership: somebody who is getting a key for the playground holds its row until then.
    Membership.objects.filter(tenant_id=member.tenant_id, id=member.id).delete()
    end_playground_key(member.tenant_id, member.user_id, now)
    end_management_keys(member.tenant_id, member.user_id, now)


def _revoke_invitations(member: Membership, now: datetime, role: Role | None = None) -> None:
    """Those that a member has written and somebody with this role, or without one, could not write."""
    written = Invitation.objects.filter(
        tenant_id=member.tenant_id, invited_by_id=member.user_id, accepted_at=None, revoked_at=None
    )
    if role is not None and may(role, Permission.MANAGE_ORGANIZATION):
        return
    if role is not None and may(role, Permission.MANAGE_MEMBERS):
        written = written.filter(role=Role.OWNER)
    written.update(revoked_at=now)


def _keep_an_owner(member: Membership) -> None:
    others = Membership.objects.filter(tenant_id=member.tenant_id, role=Role.OWNER).exclude(id=member.id)
    if not others.exists():
        raise LastOwner("an organization keeps an owner")
