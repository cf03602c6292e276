"""The description of the API: as OpenAPI for machines, and as a page for people, made of the same thing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import yaml
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from portal.api import problems
from portal.api.bodies import MAX_BODY_BYTES
from portal.api.reference import Section, sections_of
from portal.api.schema import document
from tenants.models import OPERATOR_SCOPES, TENANT_SCOPES
from tenants.operations.management import KEPT_WRITES

JSON_TYPE: Final = "application/vnd.oai.openapi+json"
YAML_TYPE: Final = "application/vnd.oai.openapi"


@require_safe
def openapi_json(request: HttpRequest) -> HttpResponse:
    return _file(_as_json(), JSON_TYPE)


@require_safe
def openapi_yaml(request: HttpRequest) -> HttpResponse:
    return _file(_as_yaml(), YAML_TYPE)


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """What is the same for all of it, and where everything is; for everybody."""
    context: dict[str, Any] = {
        "sections": _sections(),
        "section": None,
        "problems": problems.KINDS,
        "first_sample": _first_sample(),
        "tenant_scopes": [scope.value for scope in TENANT_SCOPES],
        "operator_scopes": [scope.value for scope in OPERATOR_SCOPES],
        "limit_rpm": settings.TUNING["SLUICE_API_LIMIT_RPM"],
        "kept_hours": int(KEPT_WRITES.total_seconds() // 3600),
        "max_body_kib": MAX_BODY_BYTES // 1024,
    }
    return render(request, "api/reference.html", context)


@require_safe
def section_page(request: HttpRequest, section: str) -> HttpResponse:
    """The operations of one section."""
    found = next((one for one in _sections() if one.anchor == section), None)
    if found is None:
        raise Http404
    return render(request, "api/section.html", {"sections": _sections(), "section": found})


@cache
def _sections() -> tuple[Section, ...]:
    return sections_of(plain_document())


@cache
def _as_json() -> bytes:
    return json.dumps(plain_document(), ensure_ascii=False, indent=1).encode()


@cache
def _as_yaml() -> bytes:
    return yaml.safe_dump(plain_document(), allow_unicode=True, sort_keys=False, width=120).encode()


@cache
def plain_document() -> Mapping[str, Any]:
    """The description as nothing but what JSON knows."""
    plain: Mapping[str, Any] = json.loads(json.dumps(document(), default=str))
    return plain


def _first_sample() -> str:
    return (
        f'curl "{settings.PORTAL_URL}/api/v1/organization" \\\n  -H "Authorization: Bearer $MANAGEMENT_KEY"'
    )


def _file(content: bytes, content_type: str) -> HttpResponse:
    answer = HttpResponse(content, content_type=content_type)
    answer["Cache-Control"] = "public, max-age=300"
    # Tools in browsers read it from wherever they are; there is nothing in it but what everybody may know.
    answer["Access-Control-Allow-Origin"] = "*"
    return answer
