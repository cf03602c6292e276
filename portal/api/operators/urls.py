"""The addresses of operators' endpoints, below /api/v1/operator."""

from django.urls import path

from portal.api.operators import (
    audit,
    business,
    credit,
    fleet,
    fleet_backends,
    fleet_deployments,
    fleet_health,
    price_publishing,
    price_replays,
    prices,
    tenants,
)

_PRICES = "api/v1/operator/prices"
_PRICE = f"{_PRICES}/<str:price>"
_POOLS = "api/v1/operator/pools"
_POOL = f"{_POOLS}/<str:pool>"
_BACKENDS = "api/v1/operator/backends"
_BACKEND = f"{_BACKENDS}/<str:backend>"
_DEPLOYMENTS = "api/v1/operator/deployments"
_DEPLOYMENT = f"{_DEPLOYMENTS}/<str:deployment>"

urlpatterns = [
    path("api/v1/operator/tenants", tenants.CustomerList.as_view(), name="operator-tenants"),
    path(
        "api/v1/operator/tenants/<str:organization>",
        tenants.CustomerDetail.as_view(),
        name="operator-tenant",
    ),
    path(
        "api/v1/operator/tenants/<str:organization>/suspend",
        tenants.Suspension.as_view(),
        name="operator-tenant-suspend",
    ),
    path(
        "api/v1/operator/tenants/<str:organization>/resume",
        tenants.Resumption.as_view(),
        name="operator-tenant-resume",
    ),
    path("api/v1/operator/credit-orders", credit.OrderList.as_view(), name="operator-orders"),
    path("api/v1/operator/credit-orders/<str:order>", credit.OrderDetail.as_view(), name="operator-order"),
    path(
        "api/v1/operator/credit-orders/<str:order>/approve",
        credit.OrderApproval.as_view(),
        name="operator-order-approve",
    ),
    path(
        "api/v1/operator/credit-orders/<str:order>/refuse",
        credit.OrderRefusal.as_view(),
        name="operator-order-refuse",
    ),
    path(_PRICES, prices.PriceList.as_view(), name="operator-prices"),
    path(_PRICE, prices.PriceDetail.as_view(), name="operator-price"),
    path(f"{_PRICE}/discard", prices.PriceDiscarding.as_view(), name="operator-price-discard"),
    path(f"{_PRICE}/increases", prices.PriceIncreases.as_view(), name="operator-price-increases"),
    path(
        f"{_PRICE}/publication",
        price_publishing.PricePublication.as_view(),
        name="operator-price-publication",
    ),
    path(f"{_PRICE}/end", price_publishing.PrivatePriceEnd.as_view(), name="operator-price-end"),
    path(f"{_PRICE}/what-if", price_replays.PriceReplayEndpoint.as_view(), name="operator-price-what-if"),
    path(
        f"{_PRICE}/what-if/organizations",
        price_replays.PriceReplayEffects.as_view(),
        name="operator-price-what-if-organizations",
    ),
    path(_POOLS, fleet.PoolList.as_view(), name="operator-pools"),
    path(_POOL, fleet.PoolDetail.as_view(), name="operator-pool"),
    path(f"{_POOL}/costs", fleet.PoolCosts.as_view(), name="operator-pool-costs"),
    path(f"{_POOL}/costs/end", fleet.PoolCostEnd.as_view(), name="operator-pool-costs-end"),
    path(_BACKENDS, fleet_backends.BackendList.as_view(), name="operator-backends"),
    path(_BACKEND, fleet_backends.BackendDetail.as_view(), name="operator-backend"),
    path(
        f"{_BACKEND}/credential",
        fleet_backends.BackendCredential.as_view(),
        name="operator-backend-credential",
    ),
    path(f"{_BACKEND}/state", fleet_backends.BackendState.as_view(), name="operator-backend-state"),
    path(f"{_BACKEND}/health", fleet_health.BackendHealthDetail.as_view(), name="operator-backend-health"),
    path(
        "api/v1/operator/backend-health",
        fleet_health.BackendHealthList.as_view(),
        name="operator-backends-health",
    ),
    path(_DEPLOYMENTS, fleet_deployments.DeploymentList.as_view(), name="operator-deployments"),
    path(_DEPLOYMENT, fleet_deployments.DeploymentDetail.as_view(), name="operator-deployment"),
    path(
        f"{_DEPLOYMENT}/state",
        fleet_deployments.DeploymentState.as_view(),
        name="operator-deployment-state",
    ),
    path(
        f"{_DEPLOYMENT}/capacities",
        fleet_deployments.Capacities.as_view(),
        name="operator-deployment-capacities",
    ),
    path("api/v1/operator/business", business.BusinessEndpoint.as_view(), name="operator-business"),
    path("api/v1/operator/audit", audit.AuditLog.as_view(), name="operator-audit"),
]
