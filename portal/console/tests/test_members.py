"""Members, roles and invitations in the browser."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.conf import settings

from portal.console.tests.people import HTMX, Stage, browser_of, make_person, open_stage, text_of
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.pages.roles import permission_table
from tenants import operations, queries
from tenants.models import Membership, Role, User
from tenants.permissions import DESCRIPTIONS
from tenants.queries import InvitationRow, MailRow
from tenants.scope import role_scope, tenant_scope


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def invitations_of(stage: Stage) -> list[InvitationRow]:
    with tenant_scope(stage.tenant_id):
        return queries.list_invitations(tenant_id=stage.tenant_id, now=utc_now())


def role_of(stage: Stage, person: User) -> str | None:
    with role_scope("operator"):
        member = Membership.objects.filter(tenant_id=stage.tenant_id, user=person).first()
    return member.role if member else None


def mails_to(address: str) -> list[MailRow]:
    with role_scope("dataplane"):
        return queries.list_mail(to_email=address)


def invited(stage: Stage, role: Role = Role.DEVELOPER) -> tuple[str, str]:
    """Address and public id of an invitation that the owner has sent."""
    address = f"new-{uuid7().hex[-12:]}@example.com"
    assert stage.post("invite", data={"email": address, "role": role}).status_code == 302
    return address, next(row.public_id for row in invitations_of(stage) if row.email == address)


def member_id(membership_id: object) -> str:
    return public_id(PREFIXES["membership"], membership_id)  # type: ignore[arg-type]


def test_an_invitation_goes_out_by_mail_and_its_link_is_on_no_page(stage: Stage) -> None:
    address, _ = invited(stage, Role.BILLING)
    (mail,) = mails_to(address)
    assert mail.subject == f"{stage.owner.email} invites you to Quiet Waters Ltd"
    (link,) = re.findall(rf"{re.escape(settings.PORTAL_URL)}/invitations/(\S+)", mail.text_body)
    assert "as: Billing" in mail.text_body
    assert link in mail.html_body
    with role_scope("auth"):
        offer = queries.find_invitation(token=link, now=utc_now())
    assert offer is not None
    assert (offer.email, offer.role) == (address, Role.BILLING)
    page = text_of(stage.get("members"))
    assert f'data-testid="invitation-row" data-email="{address}"' in page
    assert "is on its way" in page
    assert link not in page


def test_the_mail_is_in_the_language_of_whoever_invites(stage: Stage) -> None:
    stage.browser.cookies[settings.LANGUAGE_COOKIE_NAME] = "zh-hans"
    address, _ = invited(stage)
    (mail,) = mails_to(address)
    assert '<html lang="zh-hans">' in mail.html_body


def test_names_in_mails_are_text_and_fit_into_a_subject(database: None) -> None:
    stage = open_stage("<b>&</b> " + "x" * 180)
    address, _ = invited(stage)
    (mail,) = mails_to(address)
    assert "<b>&</b>" in mail.text_body
    assert "<strong>&lt;b&gt;&amp;&lt;/b&gt;" in mail.html_body
    assert len(mail.subject) <= 200


@pytest.mark.parametrize(
    ("email", "complaint"), [("", "This field is required"), ("no address", "Enter a valid e")]
)
def test_a_wrong_address_is_said_at_the_field(stage: Stage, email: str, complaint: str) -> None:
    for htmx in (True, False):
        answer = stage.post("invite", data={"email": email, "role": "VIEWER"}, htmx=htmx)
        assert answer.status_code == 422
        assert complaint in text_of(answer)
        assert ("<html" in text_of(answer)) != htmx
        assert 'value="VIEWER" selected' in text_of(answer)
    assert invitations_of(stage) == []


def test_members_and_invited_people_are_not_invited_again(stage: Stage) -> None:
    person, _ = stage.add(Role.VIEWER)
    member = stage.post("invite", data={"email": person.email.upper(), "role": "VIEWER"}, htmx=True)
    assert "is a member already" in text_of(member)
    address, _ = invited(stage)
    twice = stage.post("invite", data={"email": address, "role": "VIEWER"}, htmx=True)
    assert twice.status_code == 422
    assert "is open" in text_of(twice)
    assert len(mails_to(address)) == 1


def test_only_owners_invite_owners(stage: Stage) -> None:
    admin = stage.as_role(Role.ADMIN)
    assert 'value="OWNER"' not in text_of(admin.get("members"))
    answer = admin.post("invite", data={"email": "x@example.com", "role": "OWNER"}, htmx=True)
    assert answer.status_code == 422
    _, owners = invited(stage, Role.OWNER)
    assert admin.post("invitation-revoke", owners).status_code == 422
    assert admin.post("invitation-resend", owners, htmx=True).status_code == 422
    assert len(invitations_of(stage)) == 1


def test_an_invitation_is_sent_again_after_a_while_and_revoked(stage: Stage) -> None:
    address, invitation = invited(stage)
    soon = stage.post("invitation-resend", invitation, htmx=True)
    assert soon.status_code == 422
    assert "Wait a minute" in text_of(soon)
    assert "<html" not in text_of(soon)
    assert stage.post("invitation-revoke", invitation, htmx=True)["HX-Refresh"] == "true"
    assert invitations_of(stage) == []
    assert stage.post("invitation-revoke", invitation).status_code == 404
    assert stage.post("invitation-resend", invitation).status_code == 404
    assert len(mails_to(address)) == 1


def test_sending_again_makes_the_old_link_worthless(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    address, invitation = invited(stage)
    later = utc_now() + operations.invitations.RESEND_AFTER
    monkeypatch.setattr("portal.console.members.utc_now", lambda: later)
    assert stage.post("invitation-resend", invitation).status_code == 302
    links = [re.findall(r"/invitations/(\S+)", mail.text_body)[0] for mail in mails_to(address)]
    assert len(set(links)) == 2
    with role_scope("auth"):
        offers = [queries.find_invitation(token=link, now=later) for link in links]
    assert sum(offer is not None for offer in offers) == 1


def test_a_role_is_changed_where_it_stands(stage: Stage) -> None:
    person, membership = stage.add(Role.VIEWER)
    row = stage.post("member-role", member_id(membership), data={"role": "DEVELOPER"}, htmx=True)
    assert row.status_code == 200
    assert text_of(row).strip().startswith("<tr")
    assert "is Developer now" in row["HX-Trigger"]
    assert role_of(stage, person) == Role.DEVELOPER
    plain = stage.post("member-role", member_id(membership), data={"role": "BILLING"})
    assert plain.status_code == 302
    assert role_of(stage, person) == Role.BILLING


def test_an_organization_keeps_an_owner(stage: Stage) -> None:
    with role_scope("operator"):
        own = Membership.objects.get(tenant_id=stage.tenant_id, user=stage.owner)
    for name, parts, data in (
        ("member-role", [member_id(own.id)], {"role": "ADMIN"}),
        ("member-remove", [member_id(own.id)], {}),
        ("leave", [], {}),
    ):
        for htmx in (True, False):
            answer = stage.post(name, *parts, data=data, htmx=htmx)
            assert answer.status_code == 422
            assert "owner" in text_of(answer)
            assert ("<html" in text_of(answer)) != htmx
    assert role_of(stage, stage.owner) == Role.OWNER


@pytest.mark.parametrize("role", ["", "KING", "owner"])
def test_roles_that_are_none_are_refused_beside_the_row(stage: Stage, role: str) -> None:
    person, membership = stage.add(Role.VIEWER)
    answer = stage.post("member-role", member_id(membership), data={"role": role}, htmx=True)
    assert answer.status_code == 422
    assert "There is no such role" in text_of(answer)
    assert role_of(stage, person) == Role.VIEWER


def test_admins_neither_make_nor_unmake_owners(stage: Stage) -> None:
    admin = stage.as_role(Role.ADMIN)
    person, membership = stage.add(Role.VIEWER)
    with role_scope("operator"):
        own = Membership.objects.get(tenant_id=stage.tenant_id, user=stage.owner)
    for member, role in ((membership, "OWNER"), (own.id, "VIEWER")):
        answer = admin.post("member-role", member_id(member), data={"role": role}, htmx=True)
        assert answer.status_code == 422
        assert "Only an owner" in text_of(answer)
    assert admin.post("member-remove", member_id(own.id)).status_code == 422
    assert (role_of(stage, person), role_of(stage, stage.owner)) == (Role.VIEWER, Role.OWNER)


def test_removing_names_the_person_and_shuts_the_door(stage: Stage) -> None:
    person, membership = stage.add(Role.DEVELOPER)
    theirs = stage.seen_by(person)
    assert theirs.get("keys").status_code == 200
    question = stage.get("member-remove", member_id(membership), headers=HTMX)
    assert person.email in text_of(question)
    assert stage.post("member-remove", member_id(membership)).status_code == 302
    assert theirs.get("keys").status_code == 404
    assert stage.post("member-remove", member_id(membership)).status_code == 404


def test_whoever_leaves_gets_to_their_other_organizations(stage: Stage) -> None:
    person, _ = stage.add(Role.BILLING)
    theirs = stage.seen_by(person)
    assert "Quiet Waters Ltd" in text_of(theirs.get("leave"))
    left = theirs.post("leave", htmx=True)
    assert left["HX-Redirect"] == "/o/"
    assert role_of(stage, person) is None
    assert theirs.browser.get("/o/")["Location"] == "/o/new"


def test_others_see_members_and_change_nothing(stage: Stage) -> None:
    person, membership = stage.add(Role.DEVELOPER)
    _, invitation = invited(stage)
    theirs = stage.seen_by(person)
    page = text_of(theirs.get("members"))
    assert page.count('data-testid="member-row"') == 2
    assert page.count('data-testid="invitation-row"') == 1
    assert 'data-testid="member-leave"' in page
    for hook in ("invite-form", "member-remove", "invitation-revoke", "invitation-resend"):
        assert f'data-testid="{hook}"' not in page
    assert "<select" not in page.partition('data-testid="member-row"')[2].partition("</tbody>")[0]
    for answer in (
        theirs.post("invite", data={"email": "a@example.com", "role": "VIEWER"}),
        theirs.post("member-role", member_id(membership), data={"role": "OWNER"}),
        theirs.post("member-remove", member_id(membership)),
        theirs.post("invitation-revoke", invitation),
        theirs.post("invitation-resend", invitation),
    ):
        assert answer.status_code == 403
    assert role_of(stage, person) == Role.DEVELOPER


def test_members_and_invitations_of_others_do_not_exist(stage: Stage) -> None:
    other = open_stage()
    _, foreign_member = other.add(Role.VIEWER)
    _, foreign_invitation = invited(other)
    for member in (member_id(foreign_member), member_id(uuid7()), "mem_x", "\0"):
        assert stage.post("member-role", member, data={"role": "VIEWER"}).status_code == 404
        assert stage.get("member-remove", member).status_code == 404
        assert stage.post("member-remove", member).status_code == 404
    for invitation in (foreign_invitation, "inv_x", "\0"):
        assert stage.post("invitation-revoke", invitation).status_code == 404
        assert stage.post("invitation-resend", invitation).status_code == 404
    assert len(invitations_of(other)) == 1


def test_the_page_says_what_each_role_may_do(stage: Stage) -> None:
    table = text_of(stage.get("members")).partition('data-testid="role-table"')[2].partition("</table>")[0]
    assert all(description in unescape(table) for description in DESCRIPTIONS.values())
    assert table.count(">yes<") == sum(sum(row.allowed) for row in permission_table())


def test_a_stranger_finds_no_page(stage: Stage) -> None:
    stranger = Stage(stage.tenant_id, stage.public_id, stage.owner, browser_of(make_person()))
    assert stranger.get("members").status_code == 404
    assert stranger.post("leave").status_code == 404
