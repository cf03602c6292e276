"""Liveness, readiness and metrics of the web process."""

import secrets
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse

from portal.kit import metrics, valkey
from quotas.reconciliation import measures


def healthz(_request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok"})


def readyz(_request: HttpRequest) -> HttpResponse:
    """200 when the database answers with every migration that pages need, else 503 with what is missing."""
    state: dict[str, Any] = {"database": "ok", "valkey": "ok"}
    ready = True
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT revision FROM models_catalog_catalogrevision")
            if cursor.fetchone() is None:
                state["database"], ready = "not migrated", False
    except DatabaseError:
        state["database"], ready = "unreachable or not migrated", False
    try:
        client = valkey.connect_sync(settings.VALKEY_URL)
        client.ping()
        client.close()
    except (redis.RedisError, OSError):
        # Valkey carries wake-ups and rate limits only: pages and calls go on without it.
        state["valkey"] = "unreachable"
    return JsonResponse({"status": "ok" if ready else "unready", **state}, status=200 if ready else 503)


def metrics_page(request: HttpRequest) -> HttpResponse:
    """The metrics registry, for whoever holds METRICS_TOKEN; without one configured, for loopback only."""
    token = settings.METRICS_TOKEN
    if token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = secrets.compare_digest(given.encode(), token.encode())
    else:
        allowed = request.META.get("REMOTE_ADDR") in {"127.0.0.1", "::1"}
    if not allowed:
        return HttpResponse(status=404)
    measures.refresh()
    body, content_type = metrics.render()
    return HttpResponse(body, content_type=content_type)
