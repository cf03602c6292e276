"""Choices that belong to the browser, not to an account: language and theme."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from portal.pages.context import THEME_COOKIE, THEMES

YEAR_S = 365 * 86400


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """POST language=en|zh-hans, next=… (a path of this site)."""
    return set_language(request)


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """POST theme=light|dark|system, next=… (a path of this site)."""
    wanted = request.POST.get("next", "/")
    is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    response = HttpResponseRedirect(wanted if is_ours else "/")
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie(THEME_COOKIE, chosen, max_age=YEAR_S, samesite="Lax", secure=request.is_secure())
    else:
        response.delete_cookie(THEME_COOKIE, samesite="Lax")
    return response
