"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.fleet import changes, pages

_POOL = "operator/fleet/pools/<str:pool>"
_BACKEND = "operator/fleet/backends/<str:backend>"
_DEPLOYMENT = "operator/fleet/deployments/<str:deployment>"

urlpatterns: list[URLPattern] = [
    path("operator/fleet", pages.fleet, name="fleet"),
    path("operator/fleet/pools/new", changes.new_pool, name="pool-new"),
    path(_POOL, pages.pool, name="pool"),
    path(f"{_POOL}/edit", changes.edit_pool, name="pool-edit"),
    path(f"{_POOL}/cost", changes.pool_cost, name="pool-cost"),
    path(f"{_POOL}/cost/end", changes.end_pool_cost, name="pool-cost-end"),
    path(f"{_POOL}/backends/new", changes.new_backend, name="backend-new"),
    path(_BACKEND, pages.backend, name="backend"),
    path(f"{_BACKEND}/edit", changes.edit_backend, name="backend-edit"),
    path(f"{_BACKEND}/credential", changes.backend_credential, name="backend-credential"),
    path(f"{_BACKEND}/state", changes.backend_state, name="backend-state"),
    path(f"{_BACKEND}/probe", pages.probe, name="backend-probe"),
    path(f"{_BACKEND}/deployments/new", changes.new_deployment, name="deployment-new"),
    path(_DEPLOYMENT, pages.deployment, name="deployment"),
    path(f"{_DEPLOYMENT}/edit", changes.edit_deployment, name="deployment-edit"),
    path(f"{_DEPLOYMENT}/state", changes.deployment_state, name="deployment-state"),
    path(f"{_DEPLOYMENT}/abilities", changes.deployment_abilities, name="deployment-abilities"),
    path(f"{_DEPLOYMENT}/capacity", changes.capacity, name="deployment-capacity"),
]
