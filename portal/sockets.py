"""Which sockets there are, of all doors, and from which pages they may be opened."""

from typing import Any
from urllib.parse import urlsplit

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier
from django.conf import settings
from django.urls import path, re_path

from portal.backoffice.floor.consumer import floor
from portal.pages.sockets import Receive, Scope, Send, nothing_here
from portal.playground.consumer import playground

# Django's types know views only; the router calls what it finds as an ASGI application.
_playground: Any = playground
_floor: Any = floor
_nothing: Any = nothing_here

websocket_urlpatterns = [
    path("ws/o/<str:organization>/playground", _playground),
    path("ws/operator/floor", _floor),
    re_path(r"", _nothing),
]


class SameOrigin:
    """Only pages of this portal open sockets. Allowed hosts alone would let in whatever else answers at
    another port of the same host, with the same cookies."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._deny = WebsocketDenier.as_asgi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = urlsplit(headers.get(b"origin", b"").decode("latin-1").lower())
        host = headers.get(b"host", b"").decode("latin-1").lower()
        portal = urlsplit(settings.PORTAL_URL.lower())
        if origin.netloc and origin.netloc in (host, portal.netloc):
            await self._application(scope, receive, send)
        else:
            await self._deny(scope, receive, send)


application: Any = AllowedHostsOriginValidator(
    SameOrigin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
)
