"""Terms have versions. Who accepted an older one is asked again at the next visit to the console."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from tenants import queries
from tenants.scope import role_scope

SESSION_KEY: Final = "terms_version"
CONSOLE_PATH: Final = "/o/"


def must_accept(user_id: UUID) -> bool:
    """Whether this person has accepted terms, but not the present ones."""
    with role_scope("auth"):
        return queries.owes_terms(user_id=user_id, version=settings.TERMS_VERSION)


class TermsMiddleware:
    """Leads to the acceptance page from every page of the console, asking the database once a session."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if (
            request.path.startswith(CONSOLE_PATH)
            and user.is_authenticated
            and request.session.get(SESSION_KEY) != settings.TERMS_VERSION
        ):
            if must_accept(user.id):
                query = urlencode({"next": request.get_full_path()})
                return HttpResponseRedirect(f"{reverse('accounts:accept_terms')}?{query}")
            request.session[SESSION_KEY] = settings.TERMS_VERSION
        return self.get_response(request)
