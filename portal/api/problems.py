"""Everything that goes wrong, as problem details (RFC 9457): a table of kinds, a function that answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core import signals
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. code: stable, the end of its address; meaning: what to do about it."""

    code: str
    status: int
    title: str
    meaning: str

    @property
    def uri(self) -> str:
        return f"{settings.PORTAL_URL}/docs/api#problem-{self.code}"


INVALID: Final = Kind(
    "invalid-request",
    400,
    "The request is not valid",
    "`errors` names each field, parameter or header and what is wrong with it. Unknown ones are refused too.",
)
BAD_JSON: Final = Kind(
    "malformed-body", 400, "The body is not JSON", "Send one JSON object in UTF-8, without repeated names."
)
NO_KEY: Final = Kind(
    "key-missing", 401, "A management key is needed", "Send `Authorization: Bearer slm_…` with every call."
)
UNKNOWN_KEY: Final = Kind(
    "key-unknown",
    401,
    "The management key is not known",
    "It is mistyped, cut off, or of another service.",
)
API_KEY_INSTEAD: Final = Kind(
    "wrong-kind-of-key",
    401,
    "An API key cannot manage anything",
    "API keys (`slc_…`) call models. Make a management key (`slm_…`) in the console.",
)
KEY_REVOKED: Final = Kind("key-revoked", 401, "The management key was revoked", "Use another key.")
KEY_EXPIRED: Final = Kind("key-expired", 401, "The management key has expired", "Make a new key.")
MAKER_GONE: Final = Kind(
    "key-without-maker",
    401,
    "Whoever made the key may no longer do what it may",
    "A key acts in the name of the person who made it and ends with their rights. Somebody else makes a new "
    "one.",
)
FORBIDDEN: Final = Kind(
    "not-allowed",
    403,
    "The key may not do this",
    "Its scopes or its role lack what `detail` names. The attempt is written to the audit log.",
)
NOT_FOUND: Final = Kind(
    "not-found", 404, "There is no such thing", "It does not exist, or it is not the key's organization's."
)
METHOD: Final = Kind(
    "method-not-allowed",
    405,
    "The address does not take this method",
    "`Allow` lists those it takes.",
)
NOT_ACCEPTABLE: Final = Kind(
    "not-acceptable", 406, "Only JSON is offered", "Accept `application/json`, or leave the header out."
)
CONFLICT: Final = Kind(
    "conflict", 409, "The present state does not allow this", "Read the thing again, then decide."
)
KEY_REUSED: Final = Kind(
    "idempotency-key-reused",
    409,
    "The idempotency key was used for another request",
    "Repeat the very same request, or choose a new key for a new one.",
)
IN_PROGRESS: Final = Kind(
    "write-in-progress",
    409,
    "The same write is still under way",
    "Wait for `Retry-After`, then repeat it with the same idempotency key.",
)
TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large", "A body has at most 64 KiB.")
MEDIA: Final = Kind(
    "unsupported-media-type", 415, "Only JSON is taken", "Send `Content-Type: application/json`."
)
LIMIT_REACHED: Final = Kind(
    "limit-reached", 422, "There may be no more of these", "Remove one that is no longer used."
)
REFUSED: Final = Kind("refused", 422, "This cannot be done", "`detail` says why.")
RATE: Final = Kind(
    "rate-limited",
    429,
    "Too many calls with this key",
    "Wait for `Retry-After`.",
)
INTERNAL: Final = Kind(
    "internal-error",
    500,
    "Something failed on our side",
    "A write with an idempotency key can be repeated safely. Tell us the request id.",
)
UNAVAILABLE: Final = Kind(
    "unavailable", 503, "The service is not available right now", "Try again after `Retry-After`."
)

KINDS: Final = (
    INVALID,
    BAD_JSON,
    NO_KEY,
    UNKNOWN_KEY,
    API_KEY_INSTEAD,
    KEY_REVOKED,
    KEY_EXPIRED,
    MAKER_GONE,
    FORBIDDEN,
    NOT_FOUND,
    METHOD,
    NOT_ACCEPTABLE,
    CONFLICT,
    KEY_REUSED,
    IN_PROGRESS,
    TOO_LARGE,
    MEDIA,
    LIMIT_REACHED,
    REFUSED,
    RATE,
    INTERNAL,
    UNAVAILABLE,
)

# What the framework raises by itself.
_KINDS_OF: Final[Mapping[type[Exception], Kind]] = {
    exceptions.ParseError: BAD_JSON,
    exceptions.NotAuthenticated: NO_KEY,
    exceptions.AuthenticationFailed: UNKNOWN_KEY,
    exceptions.PermissionDenied: FORBIDDEN,
    exceptions.NotFound: NOT_FOUND,
    exceptions.MethodNotAllowed: METHOD,
    exceptions.NotAcceptable: NOT_ACCEPTABLE,
    exceptions.UnsupportedMediaType: MEDIA,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request. place: body, query or header."""

    place: str
    field: str
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {
            "in": self.place,
            "field": _shown(self.field),
            "code": self.code,
            "detail": _shown(self.detail),
        }


class Problem(exceptions.APIException):
    """A problem of one kind. `refused_action` of FORBIDDEN: what was tried, for the audit log."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status_code = kind.status
        self.text = detail
        self.errors = errors
        self.headers = dict(headers or {})


def field_errors(place: str, found: Any, path: str = "") -> tuple[FieldError, ...]:
    """The errors of a serializer, flattened."""
    if isinstance(found, Mapping):
        flat: list[FieldError] = []
        for name, inner in found.items():
            own = "" if name == "non_field_errors" else str(name)
            flat += field_errors(place, inner, ".".join(part for part in (path, own) if part))
        return tuple(flat)
    if isinstance(found, list | tuple):
        return tuple(error for inner in found for error in field_errors(place, inner, path))
    return (FieldError(place, path, str(getattr(found, "code", "invalid")), str(found)),)


def answer_to(error: Exception, context: Mapping[str, Any]) -> Response:
    """The answer to whatever an endpoint raised. What nobody had foreseen is logged, and says nothing."""
    request = context["request"]
    problem = _problem_of(error)
    if problem.kind is INTERNAL:
        signals.got_request_exception.send(sender=type(context.get("view")), request=request._request)
        logger.error("api.failed", exc_info=error)
    elif problem.kind is UNAVAILABLE:
        logger.warning("api.unavailable", extra={"reason": type(error).__name__})
    return Response(
        problem_json(problem, request),
        status=problem.status_code,
        headers=problem.headers,
        content_type=MEDIA_TYPE,
    )


def problem_json(problem: Problem, request: Any) -> dict[str, Any]:
    """The members of RFC 9457, and ours: code, request_id, and errors of a request that is not valid."""
    body: dict[str, Any] = {
        "type": problem.kind.uri,
        "title": problem.kind.title,
        "status": problem.status_code,
        "detail": _shown(problem.text, 500),
        "instance": _shown(request.path, 500),
        "code": problem.kind.code,
        "request_id": request.META.get("SLUICE_REQUEST_ID", ""),
    }
    if problem.errors:
        body["errors"] = [error.as_json() for error in problem.errors]
    return body


def nothing_there(request: HttpRequest, rest: str = "") -> JsonResponse:
    """Every address below the API's that is none."""
    problem = Problem(NOT_FOUND, "There is no such address; /docs/api lists all of them.")
    answer = JsonResponse(problem_json(problem, request), status=404, content_type=MEDIA_TYPE)
    answer["Cache-Control"] = "no-store"
    return answer


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Http404):
        return Problem(NOT_FOUND, "It does not exist, or it is not yours.")
    if isinstance(error, PermissionDenied):
        return Problem(FORBIDDEN, "The key may not do this.")
    if isinstance(error, exceptions.ValidationError):
        return Problem(INVALID, "See errors.", errors=field_errors("body", error.detail))
    if isinstance(error, OperationalError):
        return Problem(UNAVAILABLE, "The database did not answer in time.", headers={"Retry-After": "2"})
    for kind_of, kind in _KINDS_OF.items():
        if isinstance(error, kind_of):
            assert isinstance(error, exceptions.APIException)
            return Problem(kind, str(error.detail), headers=_headers_of(error))
    return Problem(INTERNAL, "The failure was logged with the request id.")


def _headers_of(error: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = str(error.auth_header)  # type: ignore[attr-defined]
    wait_s = getattr(error, "wait", None)
    if wait_s is not None:
        headers["Retry-After"] = str(math.ceil(wait_s))
    return headers


def _shown(text: str, limit: int = _MAX_NAME * 3) -> str:
    """Text that came from outside, of bounded length and with nothing in it that UTF-8 cannot say."""
    return text[:limit].encode("utf-8", "replace").decode()
