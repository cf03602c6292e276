"""The answers to broken requests and to our own failures, with the request id and without the database.

Django renders its own pages for these without a context, so they could not name the request.
"""

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from portal.pages.context import THEME_COOKIE, THEMES


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500."""
    return _failure(request, "500.html", 500)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400."""
    return _failure(request, "400.html", 400)


def _failure(request: HttpRequest, template: str, status: int) -> HttpResponse:
    # No context processors: they may be what failed.
    theme = request.COOKIES.get(THEME_COOKIE, "")
    context = {
        "request_id": request.META.get("SLUICE_REQUEST_ID", ""),
        "theme": theme if theme in THEMES else "",
    }
    return HttpResponse(render_to_string(template, context), status=status)
