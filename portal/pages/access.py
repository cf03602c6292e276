"""The way into an organization's pages: who is signed in, is a member, and may do this."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.response import SimpleTemplateResponse
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from tenants.models import Membership, Role
from tenants.operations import audit
from tenants.permissions import DESCRIPTIONS, Permission, may
from tenants.scope import role_scope, tenant_scope

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LAST_ORGANIZATION: Final = "last_organization"
"""Session key: where the chooser leads to. Nothing is decided by it but a redirect."""


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization as one of its members sees it. suspension_cause: of an automatic suspension."""

    tenant_id: UUID
    name: str
    currency: str
    state: str
    role: Role
    user_id: UUID
    suspension_cause: str = ""

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    def may(self, permission: Permission) -> bool:
        return may(self.role, permission)


View = Callable[..., HttpResponseBase]


def organizations_of(user_id: UUID) -> list[Organization]:
    """Every organization that a person is a member of, by name."""
    with role_scope("auth"):
        memberships = Membership.objects.select_related("tenant").filter(user_id=user_id)
        return [_organization(membership) for membership in memberships.order_by("tenant__name", "id")]


def find_organization(user_id: UUID, organization_id: str) -> Organization | None:
    """The organization of a public id, when this person is a member of it."""
    try:
        tenant_id = parse_public_id(PREFIXES["organization"], organization_id)
    except InvalidPublicId:
        return None
    with role_scope("auth"):
        membership = (
            Membership.objects.select_related("tenant").filter(user_id=user_id, tenant_id=tenant_id).first()
        )
        return _organization(membership) if membership else None


def _organization(membership: Membership) -> Organization:
    tenant = membership.tenant
    return Organization(
        tenant.id,
        tenant.name,
        tenant.currency,
        tenant.state,
        Role(membership.role),
        membership.user_id,
        tenant.suspension_cause,
    )


def organization_page(
    permission: Permission, *, methods: Sequence[str] = ("GET", "HEAD"), opens_scope: bool = True
) -> Callable[[View], View]:
    """A view of one organization: view(request, organization, **the other parts of the URL).

    It runs and is rendered in the tenant's scope, one transaction. Whoever is not signed in is asked to;
    for others than members the page does not exist; a member whose role lacks `permission` is told so.

    opens_scope: false for a view that asks a service elsewhere, which no transaction may wait for. It opens
    its scopes itself, around what needs them.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def wrapped(request: HttpRequest, organization: str, **parts: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return sign_in_first(request)
            found = find_organization(request.user.id, organization)
            if found is None:
                raise Http404
            request.organization = found  # type: ignore[attr-defined]
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            if not found.may(permission):
                with tenant_scope(found.tenant_id):
                    if request.method not in SAFE_METHODS:
                        _note_refusal(found, permission)
                    return forbidden(request, permission)
            with tenant_scope(found.tenant_id) if opens_scope else nullcontext():
                response = view(request, found, **parts)
                # What is rendered late would be rendered outside the scope.
                if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                    response.render()
            if request.method == "GET" and request.session.get(LAST_ORGANIZATION) != found.public_id:
                request.session[LAST_ORGANIZATION] = found.public_id
            return response

        wrapped.permission = permission  # type: ignore[attr-defined]
        wrapped.methods = tuple(methods)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def _note_refusal(organization: Organization, permission: Permission) -> None:
    """In the tenant's scope, whose transaction holds nothing else."""
    audit.record_refusal(
        actor=audit.member(organization.user_id, organization.role),
        action=f"page.{permission.value}",
        reason=f"The role {organization.role.value} lacks the permission.",
        tenant_id=organization.tenant_id,
        target=organization.public_id,
    )


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """To the sign-in page, and back here afterwards; a fragment takes the whole page there."""
    if request.htmx:  # type: ignore[attr-defined]
        return HttpResponseClientRedirect(reverse("account_login"))
    return redirect_to_login(request.get_full_path())


def forbidden(request: HttpRequest, permission: Permission) -> HttpResponse:
    """A member, but not with this role."""
    return render(request, "403.html", {"needed": DESCRIPTIONS[permission]}, status=403)


def parse_id(kind: str, text: str) -> UUID:
    """The UUID of a public id in a URL. Raises Http404 for everything else."""
    try:
        return parse_public_id(PREFIXES[kind], text)
    except InvalidPublicId:
        raise Http404 from None


def optional_id(kind: str, text: str) -> UUID | None:
    """The UUID of a public id in a query; None where it is left out or cannot be read."""
    try:
        return parse_public_id(PREFIXES[kind], text.strip())
    except InvalidPublicId:
        return None
