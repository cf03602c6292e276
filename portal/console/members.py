"""Who belongs to an organization: members and their roles, invitations, leaving."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_htmx.http import HttpResponseClientRedirect

from portal.console.member_mail import invitation_mail
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import done, is_fragment, person_id, show, show_dialog, with_toast
from portal.pages.roles import ROLE_NAMES, permission_table
from tenants import operations, queries
from tenants.models import Role
from tenants.operations.invitations import VALID_FOR, Compose
from tenants.permissions import Permission
from tenants.queries import InvitationRow, MemberRow

INVITE_ID: Final = "invite_%s"


class InvitationForm(forms.Form):
    """An address and a role that the inviting person may give."""

    email = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    role = forms.ChoiceField(label=gettext_lazy("Role"), initial=Role.DEVELOPER)

    def __init__(self, *args: Any, roles: list[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["role"].choices = _choices(roles)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ShownMember:
    """A row: the member, the roles that the reader may give them, and what went wrong, if anything."""

    member: MemberRow
    roles: list[tuple[str, Any]]
    is_you: bool
    error: str = ""

    @property
    def can_manage(self) -> bool:
        return bool(self.roles)


@organization_page(Permission.SEE_MEMBERS)
def members(request: HttpRequest, organization: Organization) -> HttpResponse:
    """Members, open invitations, and what each role may do."""
    return _page(request, organization)


@organization_page(Permission.MANAGE_MEMBERS, methods=("POST",))
def invite(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST email and role; the mail goes out with it. Errors: 422 with the form."""
    form = InvitationForm(request.POST, auto_id=INVITE_ID, roles=_roles_to_give(organization))
    if form.is_valid():
        now = utc_now()
        email, role = form.cleaned_data["email"].strip().lower(), Role(form.cleaned_data["role"])
        try:
            operations.invite_member(
                tenant_id=organization.tenant_id,
                email=email,
                role=role,
                actor_id=person_id(request),
                actor_role=organization.role,
                compose=_composer(request, organization, email, role, now),
                now=now,
            )
        except operations.AlreadyMember:
            form.add_error("email", _("This person is a member already."))
        except operations.AlreadyInvited:
            form.add_error("email", _("An invitation to this address is open. It can be sent again below."))
        except (operations.TooManyInvitations, operations.TooManyMails):
            form.add_error(None, _("There are too many invitations. Revoke some, or go on tomorrow."))
        except operations.InvalidEmail:
            form.add_error("email", _("Enter a valid e-mail address."))
        except operations.NotAllowed:
            form.add_error("role", _("Only an owner makes owners."))
        else:
            text = _("The invitation to %(email)s is on its way.") % {"email": email}
            return done(request, _members_url(organization), text)
    if is_fragment(request):
        return show(request, "console/members/_invite.html", {"invite_form": form}, status=422)
    return _page(request, organization, form=form, status=422)


@organization_page(Permission.MANAGE_MEMBERS, methods=("POST",))
def resend(request: HttpRequest, organization: Organization, invitation: str) -> HttpResponse:
    """POST: a new mail with a new link; the old link stops working."""
    now = utc_now()
    row = _invitation(organization, invitation, now)
    try:
        operations.resend_invitation(
            tenant_id=organization.tenant_id,
            invitation_id=row.id,
            actor_role=organization.role,
            compose=_composer(request, organization, row.email, row.role, now),
            now=now,
        )
    except operations.TooSoon:
        error = _("The last mail was written a moment ago. Wait a minute before you send another.")
        return _invitations(request, organization, row.id, error)
    except operations.TooManyMails:
        error = _("There are too many invitations. Revoke some, or go on tomorrow.")
        return _invitations(request, organization, row.id, error)
    except operations.NotAllowed:
        return _invitations(request, organization, row.id, _("Only an owner invites owners."))
    except operations.InvitationNotFound:
        raise Http404 from None
    text = _("Sent again to %(email)s. The link of the first mail no longer works.") % {"email": row.email}
    return done(request, _members_url(organization), text)


@organization_page(Permission.MANAGE_MEMBERS, methods=("POST",))
def revoke(request: HttpRequest, organization: Organization, invitation: str) -> HttpResponse:
    """POST: the link of the mail stops working."""
    now = utc_now()
    row = _invitation(organization, invitation, now)
    try:
        operations.revoke_invitation(
            tenant_id=organization.tenant_id, invitation_id=row.id, actor_role=organization.role, now=now
        )
    except operations.NotAllowed:
        error = _("Only an owner takes back an owner's invitation.")
        return _invitations(request, organization, row.id, error)
    except operations.InvitationNotFound:
        raise Http404 from None
    text = _("The invitation to %(email)s is revoked; its link no longer works.") % {"email": row.email}
    return done(request, _members_url(organization), text)


@organization_page(Permission.MANAGE_MEMBERS, methods=("POST",))
def change_role(request: HttpRequest, organization: Organization, member: str) -> HttpResponse:
    """POST role. htmx gets the row, with what went wrong beside it (422)."""
    row = _member(organization, member)
    try:
        wanted = Role(request.POST.get("role", ""))
        operations.change_role(
            tenant_id=organization.tenant_id,
            membership_id=row.membership_id,
            role=wanted,
            actor_role=organization.role,
            now=utc_now(),
        )
    except operations.LastOwner:
        error = _("An organization keeps an owner. Make somebody else one first.")
        return _row(request, organization, row, error=error)
    except operations.NotAllowed:
        return _row(request, organization, row, error=_("Only an owner makes and unmakes owners."))
    except operations.MemberNotFound:
        raise Http404 from None
    except ValueError:
        return _row(request, organization, row, error=_("There is no such role."))
    text = _("%(email)s is %(role)s now.") % {"email": row.email, "role": ROLE_NAMES[wanted]}
    # Whoever changes their own role sees another page from now on.
    if not is_fragment(request) or row.user_id == person_id(request):
        return done(request, _members_url(organization), text)
    return with_toast(_row(request, organization, _member(organization, member)), text)


@organization_page(Permission.MANAGE_MEMBERS, methods=("GET", "HEAD", "POST"))
def remove(request: HttpRequest, organization: Organization, member: str) -> HttpResponse:
    """GET the question; POST ends the membership."""
    row = _member(organization, member)
    error = ""
    if request.method == "POST":
        try:
            operations.remove_member(
                tenant_id=organization.tenant_id,
                membership_id=row.membership_id,
                actor_role=organization.role,
                now=utc_now(),
            )
        except operations.LastOwner:
            error = _("An organization keeps an owner. Make somebody else one first.")
        except operations.NotAllowed:
            error = _("Only an owner removes an owner.")
        except operations.MemberNotFound:
            raise Http404 from None
        else:
            if row.user_id == person_id(request):
                return _gone(request)
            text = _("%(email)s is no longer a member.") % {"email": row.email}
            return done(request, _members_url(organization), text)
    return show_dialog(
        request,
        "console/members/_remove.html",
        {"member": row, "error": error, "is_you": row.user_id == person_id(request)},
        title=_("Remove %(email)s?") % {"email": row.email},
        section="members",
        status=422 if error else 200,
    )


@organization_page(Permission.SEE_MEMBERS, methods=("GET", "HEAD", "POST"))
def leave(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the question; POST leaves the organization."""
    error = ""
    if request.method == "POST":
        try:
            operations.leave(tenant_id=organization.tenant_id, user_id=person_id(request), now=utc_now())
        except operations.LastOwner:
            error = _("You are the only owner. Make somebody else an owner first.")
        except operations.NotAMember:
            raise Http404 from None
        else:
            return _gone(request)
    return show_dialog(
        request,
        "console/members/_leave.html",
        {"error": error},
        title=_("Leave %(organization)s?") % {"organization": organization.name},
        section="members",
        status=422 if error else 200,
    )


def _page(
    request: HttpRequest,
    organization: Organization,
    *,
    form: InvitationForm | None = None,
    failed: tuple[UUID, str] | None = None,
    status: int = 200,
) -> HttpResponse:
    """failed: the membership or invitation that something went wrong with, and what."""
    context: dict[str, Any] = {
        "section": "members",
        "rows": [
            _shown(request, organization, row, failed)
            for row in queries.list_members(tenant_id=organization.tenant_id)
        ],
        "roles": [ROLE_NAMES[role] for role in Role],
        "permissions": permission_table(),
        **_invitation_context(organization, failed),
    }
    if organization.may(Permission.MANAGE_MEMBERS):
        context["invite_form"] = form or InvitationForm(auto_id=INVITE_ID, roles=_roles_to_give(organization))
    return show(request, "console/members/list.html", context, status=status)


def _row(
    request: HttpRequest, organization: Organization, row: MemberRow, *, error: str = ""
) -> HttpResponse:
    status = 422 if error else 200
    failed = (row.membership_id, error) if error else None
    if not is_fragment(request):
        return _page(request, organization, failed=failed, status=status)
    context = {"row": _shown(request, organization, row, failed)}
    return show(request, "console/members/_row.html", context, status=status)


def _invitations(
    request: HttpRequest, organization: Organization, invitation_id: UUID, error: str
) -> HttpResponse:
    failed = (invitation_id, error)
    if not is_fragment(request):
        return _page(request, organization, failed=failed, status=422)
    context = _invitation_context(organization, failed)
    return show(request, "console/members/_invitations.html", context, status=422)


def _invitation_context(organization: Organization, failed: tuple[UUID, str] | None) -> dict[str, Any]:
    rows = queries.list_invitations(tenant_id=organization.tenant_id, now=utc_now())
    return {
        "invitations": rows,
        "failed_invitation": failed[0] if failed else None,
        "invitation_error": failed[1] if failed else "",
    }


def _shown(
    request: HttpRequest, organization: Organization, row: MemberRow, failed: tuple[UUID, str] | None
) -> ShownMember:
    roles = _roles_to_give(organization)
    may_manage = row.role in roles
    error = failed[1] if failed and failed[0] == row.membership_id else ""
    return ShownMember(row, _choices(roles) if may_manage else [], row.user_id == person_id(request), error)


def _roles_to_give(organization: Organization) -> list[Role]:
    """Which roles somebody with this role gives and takes."""
    if not organization.may(Permission.MANAGE_MEMBERS):
        return []
    makes_owners = organization.may(Permission.MANAGE_ORGANIZATION)
    return [role for role in Role if makes_owners or role != Role.OWNER]


def _choices(roles: list[Role]) -> list[tuple[str, Any]]:
    return [(role.value, ROLE_NAMES[role]) for role in roles]


def _composer(
    request: HttpRequest, organization: Organization, email: str, role: Role, now: datetime
) -> Compose:
    user = request.user
    assert user.is_authenticated
    return invitation_mail(
        organization=organization,
        inviter=user.full_name or user.email,
        email=email,
        role=role,
        expires_at=now + VALID_FOR,
    )


def _member(organization: Organization, text: str) -> MemberRow:
    membership_id = parse_id("membership", text)
    for row in queries.list_members(tenant_id=organization.tenant_id):
        if row.membership_id == membership_id:
            return row
    raise Http404


def _invitation(organization: Organization, text: str, now: datetime) -> InvitationRow:
    invitation_id = parse_id("invitation", text)
    for row in queries.list_invitations(tenant_id=organization.tenant_id, now=now):
        if row.id == invitation_id:
            return row
    raise Http404


def _gone(request: HttpRequest) -> HttpResponse:
    """To the organizations that are left, or to opening one."""
    address = reverse("console:chooser")
    return HttpResponseClientRedirect(address) if is_fragment(request) else HttpResponseRedirect(address)


def _members_url(organization: Organization) -> str:
    return reverse("console:members", args=[organization.public_id])
