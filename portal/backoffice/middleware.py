"""The way into the operators' area: staff, with a second factor, and then the operator role."""

from collections.abc import Callable
from typing import Final

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import SimpleTemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect

from portal.backoffice.second_factor import has_second_factor, used_second_factor
from tenants.scope import role_scope

OPERATOR_PATHS: Final = ("/operator/", "/admin/")
_ADMIN_LOGIN: Final = "/admin/login/"


class OperatorScopeMiddleware:
    """Opens the operator scope for the operators' area and for nothing else.

    Whoever is not signed in is asked to; for others than staff the area does not exist; staff without a
    second factor set one up first, and a session that was opened without it proves it now.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(OPERATOR_PATHS):
            return self.get_response(request)
        barrier = _barrier(request)
        if barrier is not None:
            # A fragment cannot be a sign-in page: the whole page goes there.
            is_fragment = getattr(request, "htmx", False)
            return HttpResponseClientRedirect(barrier) if is_fragment else HttpResponseRedirect(barrier)
        with role_scope("operator"):
            response = self.get_response(request)
            # Admin pages render lazily; the queries of the template belong inside the scope.
            if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
                response.render()
        # What operators see is nobody else's, on no shared computer.
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _barrier(request: HttpRequest) -> str | None:
    """Where this session has to go first; None when it may enter. Raises Http404 for others than staff."""
    user = request.user
    wanted = "/admin/" if request.path_info == _ADMIN_LOGIN else request.get_full_path()
    if not user.is_authenticated:
        return redirect_to_login(wanted).url
    if not (user.is_active and user.is_staff):
        raise Http404
    if not has_second_factor(user):
        if not getattr(request, "htmx", False):
            messages.warning(
                request,
                _("Operators need a second factor. Turn one on here; then the operators' pages open."),
            )
        return reverse("mfa_index")
    if not used_second_factor(request, user):
        return f"{reverse('mfa_reauthenticate')}?{urlencode({'next': wanted})}"
    return None
