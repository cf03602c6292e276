"""People for tests: with verified addresses, in organizations, and signed in without the sign-in page."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from uuid import UUID

from allauth.account.models import EmailAddress
from django.conf import settings
from django.test import Client

from portal.kit.ids import uuid7
from tenants.models import Membership, Role, TermsAcceptance, User
from tenants.scope import role_scope
from tests.factories import TenantFixture, make_tenant

PASSWORD = "seven quiet locks at dawn"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a verified address, whose password is PASSWORD."""

    id: UUID
    email: str


def unique_address(stem: str = "person") -> str:
    """An address in a domain of its own, so that rules that count by domain do not meet other tests."""
    return f"{stem}@{secrets.token_hex(6)}.example"


def make_person(stem: str = "person", *, is_staff: bool = False) -> Person:
    """Somebody who has signed up, confirmed the address and accepted the terms."""
    email = unique_address(stem)
    with role_scope("auth"):
        user = User.objects.create_user(
            email, PASSWORD, full_name=stem.title(), is_staff=is_staff, is_superuser=is_staff
        )
        EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
        TermsAcceptance.objects.create(user_id=user.id, version=settings.TERMS_VERSION)
    return Person(user.id, email)


def add_member(tenant: TenantFixture, person: Person, role: Role | str) -> UUID:
    """The id of the membership."""
    with role_scope("operator"):
        return Membership.objects.create(
            id=uuid7(), tenant_id=tenant.id, user_id=person.id, role=Role(role)
        ).id


def make_member(tenant: TenantFixture, role: Role | str) -> Person:
    """Somebody new with this role in the organization."""
    person = make_person(str(role).lower())
    add_member(tenant, person, role)
    return person


def make_owner(**options: str | None) -> tuple[TenantFixture, Person]:
    """An organization (options as of make_tenant) with its owner."""
    tenant = make_tenant(**options)  # type: ignore[arg-type]
    return tenant, make_member(tenant, Role.OWNER)


def signed_in(person: Person, *, raises: bool = True) -> Client:
    """Django's client with a session of this person."""
    client = Client(raise_request_exception=raises)
    with role_scope("auth"):
        client.force_login(User.objects.get(id=person.id))
    return client


def session_cookie(person: Person) -> str:
    """The value of the cookie that signs a browser in as this person."""
    return signed_in(person).cookies[settings.SESSION_COOKIE_NAME].value
