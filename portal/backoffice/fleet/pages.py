"""The fleet: one screen of all of it, and a page for each pool, backend and deployment."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse

from models_catalog.fleet import queries
from models_catalog.fleet.inventory import BackendNotFound
from models_catalog.fleet.measured import curve_history
from models_catalog.fleet.probe import probe_backend
from models_catalog.fleet.queries import BackendRow, DeploymentRow, PoolRow
from portal.backoffice.fleet.curves import show_curve
from portal.backoffice.fleet.gateways import read_words
from portal.backoffice.fleet.rows import show_backend, show_deployment, show_pool
from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import is_fragment, show
from quotas.metering.queries.fleet_health import BackendHealth, backend_health

SECTION = "fleet"


@operator_page()
def fleet(request: HttpRequest) -> HttpResponse:
    """Every pool with its backends; htmx asks for the tables alone, again and again."""
    now = utc_now()
    health = _health()
    words = read_words()
    pools = [show_pool(row, health or {}, words or ()) for row in queries.list_pools(now=now)]
    backends = [backend for pool in pools for backend in pool.backends]
    context = {
        "section": SECTION,
        "now": now,
        "pools": pools,
        "has_failed": health is None,
        "summary": {
            "backends": len(backends),
            "serving": sum(1 for one in backends if one.row.state == "ACTIVE"),
            "in_flight": sum(one.health.in_flight for one in backends if one.health),
            "troubled": sum(1 for one in backends if one.lamp.tone in ("warn", "bad")),
        },
    }
    return show(request, f"backoffice/fleet/{'_fleet' if is_fragment(request) else 'fleet'}.html", context)


@operator_page()
def pool(request: HttpRequest, pool: str) -> HttpResponse:
    """One pool: what it costs, how much of it is reserved, and what runs on it."""
    now = utc_now()
    row = find_pool(pool)
    health = _health()
    context = {
        "section": SECTION,
        "now": now,
        "pool": show_pool(row, health or {}, read_words() or ()),
        "has_failed": health is None,
        "costs": queries.cost_history(pool_id=row.id, now=now),
    }
    if is_fragment(request):
        return show(request, "backoffice/fleet/_backends.html", context)
    return show(request, "backoffice/fleet/pool.html", context)


@operator_page()
def backend(request: HttpRequest, backend: str) -> HttpResponse:
    """One backend: how it does, what is on it and what operators know of it."""
    row = find_backend(backend)
    health, words = _health(), read_words()
    context = {
        "section": SECTION,
        "now": utc_now(),
        "backend": show_backend(row, (health or {}).get(row.id), words or ()),
        "has_failed": health is None,
        "gateways_unknown": words is None,
    }
    if is_fragment(request):
        return show(request, "backoffice/fleet/_health.html", context)
    return show(request, "backoffice/fleet/backend.html", context)


@operator_page()
def deployment(request: HttpRequest, deployment: str) -> HttpResponse:
    """One model on one backend: its name there, its share of the pool and what it can carry."""
    now = utc_now()
    row = find_deployment(deployment)
    curves = curve_history(deployment_id=row.id)
    context = {
        "section": SECTION,
        "now": now,
        "deployment": show_deployment(row),
        "capacities": queries.capacity_history(deployment_id=row.id, now=now),
        "curves": curves,
        "measured": show_curve(curves[0]) if curves else None,
    }
    return show(request, "backoffice/fleet/deployment.html", context)


@operator_page(methods=("POST",), fragment=True, atomic=False)
def probe(request: HttpRequest, backend: str) -> HttpResponse:
    """Ask the backend now; what it answers is shown and kept nowhere."""
    try:
        found = probe_backend(backend_id=parse_id("backend", backend), secrets=settings.SECRET_STORE)
    except BackendNotFound:
        raise Http404 from None
    row = find_backend(backend)
    unknown = [one for one in row.deployments if found.models and one.upstream_model not in found.models]
    context: dict[str, Any] = {"section": SECTION, "row": row, "probe": found, "unknown": unknown}
    if is_fragment(request):
        return show(request, "backoffice/fleet/_probe.html", context)
    return show(request, "backoffice/fleet/probe.html", context)


def find_pool(text: str) -> PoolRow:
    """The pool of a public id. Raises Http404."""
    row = queries.fleet_of_pool(pool_id=parse_id("pool", text), now=utc_now())
    if row is None:
        raise Http404
    return row


def find_backend(text: str) -> BackendRow:
    """The backend of a public id. Raises Http404."""
    row = queries.find_backend(backend_id=parse_id("backend", text), now=utc_now())
    if row is None:
        raise Http404
    return row


def find_deployment(text: str) -> DeploymentRow:
    """The deployment of a public id. Raises Http404."""
    row = queries.find_deployment(deployment_id=parse_id("deployment", text), now=utc_now())
    if row is None:
        raise Http404
    return row


def _health() -> Mapping[UUID, BackendHealth] | None:
    """None when it took too long or the database is away: a table that stands still looks like peace."""
    try:
        return backend_health(now=utc_now(), call_timeout_s=settings.TUNING["SLUICE_CALL_TIMEOUT_S"])
    except OperationalError:
        return None
