"""The mail that invites somebody, in the language of whoever invites."""

from datetime import datetime

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from portal.pages.access import Organization
from portal.pages.roles import ROLE_NAMES
from tenants.models import Role
from tenants.operations import OutgoingMail
from tenants.operations.invitations import Compose


def invitation_mail(
    *, organization: Organization, inviter: str, email: str, role: Role, expires_at: datetime
) -> Compose:
    """What writes the mail around a token. The link is the only place where the token stands."""

    def compose(token: str) -> OutgoingMail:
        link = settings.PORTAL_URL.rstrip("/") + reverse("accounts:invitation", args=[token])
        context = {
            "organization_name": organization.name,
            "inviter": inviter,
            "role": ROLE_NAMES[role],
            "link": link,
            "expires_at": expires_at,
        }
        return OutgoingMail(
            to_email=email,
            subject=_("%(inviter)s invites you to %(organization)s")
            % {"inviter": _one_line(inviter), "organization": _one_line(organization.name)},
            text_body=render_to_string("console/members/invitation_mail.txt", context),
            html_body=render_to_string("console/members/invitation_mail.html", context),
        )

    return compose


def _one_line(name: str) -> str:
    """Names stand in a subject, which is one short line."""
    return Truncator(" ".join(name.split())).chars(70)
