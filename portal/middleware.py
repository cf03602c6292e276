"""Gives every web request an id, in the log lines and in the answer."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from portal.kit import logs
from portal.kit.ids import PREFIXES, public_id, uuid7


class RequestIdMiddleware:
    """Binds the request id for the log and clears it afterwards, so nothing leaks into the next request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = public_id(PREFIXES["request"], uuid7())
        request.META["SLUICE_REQUEST_ID"] = request_id
        logs.bind(request_id=request_id)
        try:
            response = self.get_response(request)
        finally:
            logs.clear()
        response["x-request-id"] = request_id
        return response
