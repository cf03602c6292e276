"""What tests of these pages begin with: an organization with somebody in each role, and their browsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.test import Client
from django.urls import reverse

from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas import operations as quota_operations
from tenants.models import Membership, Role, User
from tenants.scope import role_scope

HTMX = {"HX-Request": "true"}


def make_person(stem: str = "person") -> User:
    with role_scope("auth"):
        return User.objects.create_user(f"{stem}-{uuid7().hex[-12:]}@example.com", None, full_name="")


def browser_of(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


@dataclass(frozen=True, slots=True)
class Stage:
    """An organization and its owner's browser."""

    tenant_id: UUID
    public_id: str
    owner: User
    browser: Client

    def url(self, name: str, *parts: str) -> str:
        return reverse(f"console:{name}", args=[self.public_id, *parts])

    def get(
        self,
        name: str,
        *parts: str,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        return self.browser.get(self.url(name, *parts), query or {}, headers=headers or {})

    def post(self, name: str, *parts: str, data: dict[str, Any] | None = None, htmx: bool = False) -> Any:
        return self.browser.post(self.url(name, *parts), data or {}, headers=HTMX if htmx else {})

    def add(self, role: Role) -> tuple[User, UUID]:
        """A further member and the id of the membership."""
        person = make_person(role.lower())
        with role_scope("operator"):
            membership = Membership.objects.create(tenant_id=self.tenant_id, user=person, role=role)
        return person, membership.id

    def seen_by(self, person: User) -> Stage:
        return Stage(self.tenant_id, self.public_id, person, browser_of(person))

    def as_role(self, role: Role) -> Stage:
        """The same organization in the browser of a further member with this role."""
        return self.seen_by(self.add(role)[0])


def open_stage(name: str = "Quiet Waters Ltd") -> Stage:
    owner = make_person("owner")
    with role_scope("operator"):
        tenant_id = quota_operations.open_tenant(
            name=name, currency="USD", currencies=("USD", "CNY"), owner_id=owner.id
        )
    return Stage(tenant_id, public_id(PREFIXES["organization"], tenant_id), owner, browser_of(owner))


def text_of(response: Any) -> str:
    return str(response.content.decode())
