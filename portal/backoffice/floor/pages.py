"""The factory floor: a snapshot that the page's script then keeps up to date through the socket."""

from __future__ import annotations

import logging

from asgiref.sync import async_to_sync
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode

from portal.backoffice.floor.feed import READER, WINDOW_S, read_flows
from portal.backoffice.floor.shown import blank_pool, shown
from portal.backoffice.floor.state import Note
from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from quotas.business.floor import FloorBooks

logger = logging.getLogger(__name__)

SOCKET = "/ws/operator/floor"


@operator_page()
def floor(request: HttpRequest) -> HttpResponse:
    """Pools with what flows, earns and burns now. Says what is not known when a store does not answer."""
    state = shown(_books(), async_to_sync(read_flows)(), at=utc_now())
    here = urlencode({"next": request.path})
    context = {
        "section": "floor",
        "state": state,
        "at": parse_datetime(state["at"]),
        "books_at": parse_datetime(state["books_at"]) if state["books_at"] else None,
        "blank": blank_pool(),
        "notes": [note.value for note in Note],
        "window_s": WINDOW_S,
        "socket": SOCKET,
        "sign_in_url": f"{reverse('account_login')}?{here}",
        "proof_url": f"{reverse('mfa_reauthenticate')}?{here}",
    }
    return render(request, "backoffice/floor/page.html", context)


def _books() -> FloorBooks | None:
    try:
        return READER.read(now=utc_now())
    except DatabaseError as error:
        logger.warning("backoffice.floor.no_books", extra={"reason": type(error).__name__})
        return None
