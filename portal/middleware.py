"""What every web request gets: an id, in the log lines and in the answer; and no copy of what is private."""

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


class PrivateAnswersMiddleware:
    """What somebody sees who is signed in is not there any more, by going back, once they have signed out."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # An answer that did not ask who it is for is the same for everybody. Failures show nothing of
        # anybody, and the database may be what failed.
        if (
            "Cache-Control" not in response
            and request.session.accessed
            and response.status_code < 500
            and request.user.is_authenticated
        ):
            response["Cache-Control"] = "no-store, private"
        return response
