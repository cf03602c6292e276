"""How page doors answer: a dialog's content for htmx, a page for everybody else; then back again."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django_htmx.http import HttpResponseClientRedirect, HttpResponseClientRefresh, trigger_client_event


class Unlogged(str):
    """A text that pages show and logs do not: at the level DEBUG, Django logs whole contexts of templates."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def is_fragment(request: HttpRequest) -> bool:
    """Whether a part of the page is asked for (by htmx), not a whole one."""
    return bool(request.htmx)  # type: ignore[attr-defined]


def person_id(request: HttpRequest) -> UUID:
    """Who asks; organization pages have let nobody in who is not signed in."""
    assert request.user.is_authenticated
    return request.user.id


def show(
    request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200, private: bool = False
) -> HttpResponse:
    """A page or a fragment. private: never kept by anybody, because a secret shows or could."""
    response = render(request, template, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    if private:
        never_keep(response)
    return response


def show_dialog(
    request: HttpRequest,
    fragment: str,
    context: dict[str, Any],
    *,
    title: str,
    section: str,
    status: int = 200,
    private: bool = False,
    page: str = "console/page.html",
) -> HttpResponse:
    """A form or a question: the content of an open dialog, or `page` without scripts."""
    frame = "components/dialog.html" if is_fragment(request) else page
    frame_context = {**context, "fragment": fragment, "dialog_title": title, "section": section}
    return show(request, frame, frame_context, status=status, private=private)


def never_keep(response: HttpResponse) -> None:
    """No cache, no history of a proxy, no copy on disk."""
    add_never_cache_headers(response)
    response["Cache-Control"] = "no-store, private"


def done(request: HttpRequest, address: str, text: str) -> HttpResponse:
    """What was asked for happened: the page below the dialog is loaded anew (its filters are in its address),
    or `address` without scripts; either says `text`, which never holds a secret."""
    messages.info(request, text)
    return HttpResponseClientRefresh() if is_fragment(request) else HttpResponseRedirect(address)


def leave_for(request: HttpRequest, address: str) -> HttpResponse:
    """To another site after a form, such as the page where people pay. The content security policy lets no
    form lead out of this site, so a page of our own leads on, at once and with a link to press."""
    if is_fragment(request):
        return HttpResponseClientRedirect(address)
    return show(request, "console/leaving.html", {"address": address, "section": "billing"}, private=True)


def with_toast(response: HttpResponse, text: str) -> HttpResponse:
    """The same answer to htmx; the page shows and announces `text`."""
    return trigger_client_event(response, "toast", {"text": text})
