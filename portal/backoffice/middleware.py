"""The way into the operators' area: staff, in an elevated session, and then the operator role."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import SimpleTemplateResponse
from django.urls import Resolver404, ResolverMatch, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect

from portal.backoffice.elevation import OperatorSession, elevated_until
from portal.backoffice.second_factor import has_second_factor
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from portal.pages.access import SAFE_METHODS
from tenants.models import ActorKind, Tenant, User
from tenants.operations import audit
from tenants.scope import role_scope

OPERATOR_PATHS: Final = ("/operator/", "/admin/")
_ADMIN_LOGIN: Final = "/admin/login/"


class OperatorScopeMiddleware:
    """Opens the operator scope for the operators' area and for nothing else.

    Whoever is not signed in is asked to; for others than staff the area does not exist; staff without a
    second factor set one up first, and a session whose factor was used too long ago proves it again. What
    would have changed something is refused then, and stands in the audit log.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(OPERATOR_PATHS):
            return self.get_response(request)
        user = request.user
        if not user.is_authenticated:
            return _lead(request, redirect_to_login(_wanted(request)).url)
        if not (user.is_active and user.is_staff):
            _note_refusal(request, audit.member(user.id, None), "The person is no operator.")
            raise Http404
        until = elevated_until(request.session, user, now=utc_now())
        if until is None:
            return _not_elevated(request, user)
        request.operator = OperatorSession(user, until)  # type: ignore[attr-defined]
        with role_scope("operator"):
            response = self.get_response(request)
            # Admin pages render lazily; the queries of the template belong inside the scope.
            if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                response.render()
        # What operators see is nobody else's, on no shared computer.
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _not_elevated(request: HttpRequest, user: User) -> HttpResponse:
    has_factor = has_second_factor(user)
    if request.method not in SAFE_METHODS:
        reason = "The elevated session has ended." if has_factor else "The operator has no second factor."
        _note_refusal(request, audit.operator(user.id), reason)
        return _refusal(request, has_factor)
    if has_factor:
        return _lead(request, _proof_address(_wanted(request)))
    if not _is_fragment(request):
        messages.warning(
            request, _("Operators need a second factor. Turn one on here; then the operators' pages open.")
        )
    return _lead(request, reverse("mfa_index"))


def _refusal(request: HttpRequest, has_factor: bool) -> HttpResponse:
    """The answer to what would have changed something. A dialog keeps what was typed and shows it as a
    notice; the factor is proven in another tab then."""
    if _is_fragment(request):
        proof = _proof_address(reverse("backoffice:elevated")) if has_factor else reverse("mfa_index")
        response = render(request, "backoffice/_not_elevated.html", {"proof_url": proof}, status=403)
        response["X-Notice"] = "1"
    else:
        proof = _proof_address(_referrer(request)) if has_factor else reverse("mfa_index")
        response = render(request, "backoffice/not_elevated.html", {"proof_url": proof}, status=403)
    response["Cache-Control"] = "no-store"
    return response


def _lead(request: HttpRequest, address: str) -> HttpResponse:
    # A fragment cannot be a sign-in page: the whole page goes there.
    return HttpResponseClientRedirect(address) if _is_fragment(request) else HttpResponseRedirect(address)


def _is_fragment(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def _wanted(request: HttpRequest) -> str:
    """Where this person wants to be: of a fragment, the page that it is for."""
    if request.path_info == _ADMIN_LOGIN:
        return "/admin/"
    if _is_fragment(request):
        page: str | None = request.htmx.current_url_abs_path  # type: ignore[attr-defined]
        if page and page.startswith(OPERATOR_PATHS):
            return page
    return request.get_full_path()


def _referrer(request: HttpRequest) -> str:
    """The page that sent the form, if it is one of ours."""
    address = request.headers.get("Referer", "")
    path = urlsplit(address).path
    is_ours = url_has_allowed_host_and_scheme(address, {request.get_host()}) and path.startswith(
        OPERATOR_PATHS
    )
    return path if is_ours else reverse("backoffice:home")


def _proof_address(wanted: str) -> str:
    return f"{reverse('mfa_reauthenticate')}?{urlencode({'next': wanted})}"


def _note_refusal(request: HttpRequest, actor: audit.Actor, reason: str) -> None:
    """Write down what would have changed something; reading is no attempt, nor is an address of nothing."""
    if request.method in SAFE_METHODS:
        return
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return
    with role_scope("operator"), transaction.atomic(using="operator"):
        audit.record_refusal(
            actor=actor,
            action=_action(match),
            reason=reason,
            # For others than operators the area does not exist, so whose it would have been is not said.
            tenant_id=_tenant_of(match) if actor.kind == ActorKind.OPERATOR else None,
            target=_target(request, match),
            is_internal=True,
        )


def _action(match: ResolverMatch) -> str:
    """`operator.tenant_suspend` of the address named backoffice:tenant-suspend."""
    area = "admin" if match.namespace == "admin" else "operator"
    return f"{area}.{re.sub(r'[^a-z_]', '_', (match.url_name or 'unnamed').lower())[:50]}"


def _target(request: HttpRequest, match: ResolverMatch) -> str:
    """What the address names."""
    return " ".join(str(value) for value in match.kwargs.values()) if match.kwargs else request.path_info


def _tenant_of(match: ResolverMatch) -> UUID | None:
    try:
        tenant_id = parse_public_id(PREFIXES["organization"], match.kwargs.get("organization", ""))
    except InvalidPublicId:
        return None
    return tenant_id if Tenant.objects.filter(id=tenant_id).exists() else None
