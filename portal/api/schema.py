"""The OpenAPI description: what drf-spectacular finds in the endpoints, and what is the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from portal.api import problems
from portal.api.fields import ID_PATTERN, Strict
from portal.api.operations import METHODS
from portal.api.writes import HEADER, REPLAY_HEADER
from portal.kit.ids import PREFIXES
from tenants.models import MAX_IDEMPOTENCY_KEY_LENGTH

SCHEME: Final = "managementKey"
OPERATION_ID_OF_SCHEMA: Final = "openapi"

INTRODUCTION: Final = """\
For programs that manage an organization, and for those that run the centre. Everything here can be done in
the console as well, by the same rules.

Send a management key as `Authorization: Bearer slm_…`. Bodies and answers are JSON, moments RFC 3339 in UTC,
amounts of money decimal texts beside whole nano-units. Every problem is answered as RFC 9457 says.
"""

TAGS: Final = {
    "organization": "Whose key it is.",
    "keys": "API keys, with which programs call models.",
    "models": "The catalog with the organization's own prices, and what it has enabled.",
    "usage": "What was used: sums, calls, and what explains each charge.",
    "money": "What there is, and every transaction that led to it.",
    "limits": "What may be used, and by what it is limited.",
    "operators: tenants": "Organizations, their credit and who may use the centre.",
    "operators: prices": "Versions of prices: drafts, their effect, publishing.",
    "operators: fleet": "Pools, backends and deployments, what they cost and can do.",
    "operators: business": "Revenue, cost and margin.",
    "operators: audit": "What was done, by whom and why.",
}

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457. `code` is the end of `type`, and what programs look at.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "enum": [kind.code for kind in problems.KINDS]},
        "request_id": {"type": "string", "description": "Tell it to us when you ask about a problem."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "in": {"type": "string", "enum": ["body", "query", "header"]},
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "required": ["in", "field", "code", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
}

_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "The id of this call.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "How many calls may follow at once (r), and in how many seconds all may (t).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "How many calls (q) a key may make in a window of seconds (w).",
        "schema": {"type": "string"},
    },
}
_REPLAY: Final[dict[str, Any]] = {
    REPLAY_HEADER: {
        "description": "`true` when this is the answer to the same write before.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER: Final[dict[str, Any]] = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
}


class ApiSchema(AutoSchema):
    """One endpoint's part of it."""

    def get_override_parameters(self) -> list[Any]:
        if self.method not in ("POST", "PUT", "PATCH", "DELETE"):
            return []
        return [
            OpenApiParameter(
                HEADER,
                {"type": "string", "pattern": r"^[!-~]+$", "maxLength": MAX_IDEMPOTENCY_KEY_LENGTH},
                OpenApiParameter.HEADER,
                description="Repeats of the same write with the same key do nothing and get the same answer, "
                "for at least 24 hours. Strongly recommended.",
            )
        ]

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, Strict) and direction == "request":
            schema["additionalProperties"] = False
        return schema


class PublicIdForm(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Ids, with the prefix of their kind."""

    target_class = "portal.api.fields.PublicId"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{PREFIXES[self.target.kind]}_{ID_PATTERN}$"}


class ManagementKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the key is sent."""

    target_class = "portal.api.authentication.ManagementKeyAuthentication"
    name = SCHEME

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "slm_…",
            "description": "A management key. Its scopes and its role decide what it may do.",
        }


def finish(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Adds what all operations have in common: problems, headers, tags."""
    result["info"]["description"] = INTRODUCTION
    result["servers"] = [{"url": settings.PORTAL_URL}]
    result["components"]["schemas"]["Problem"] = _PROBLEM
    used = set()
    for operations in result["paths"].values():
        for method, found in operations.items():
            if method in METHODS:
                used.update(found["tags"])
                _finish_operation(method, found)
    result["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    return result


@cache
def document() -> Mapping[str, Any]:
    """The whole description, made once a process."""
    generator: Any = SchemaGenerator()  # type: ignore[no-untyped-call]
    found: Mapping[str, Any] = generator.get_schema(request=None, public=True)
    return found


def _finish_operation(method: str, found: dict[str, Any]) -> None:
    for answer in found["responses"].values():
        answer["headers"] = {**_HEADERS, **(_REPLAY if method != "get" else {})}
    by_status: dict[int, list[problems.Kind]] = {}
    for kind in problems.KINDS:
        if kind.code in found["x-problems"] or kind.status == HTTPStatus.UNAUTHORIZED:
            by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        headers = dict(_HEADERS)
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers |= _RETRY_AFTER
        found["responses"][str(status)] = {
            "description": " ".join(f"`{kind.code}`: {kind.title}." for kind in kinds),
            "headers": headers,
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    found["responses"] = dict(sorted(found["responses"].items()))
