"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.tiers import limits, tiers

urlpatterns: list[URLPattern] = [
    path("operator/tiers", tiers.tiers, name="tiers"),
    path("operator/tiers/new", tiers.new_tier, name="tier-new"),
    path("operator/tiers/<str:tier>", tiers.tier, name="tier"),
    path("operator/tiers/<str:tier>/delete", tiers.delete_tier, name="tier-delete"),
    path("operator/tenants/<str:organization>/limits", limits.tenant_limits, name="tenant-limits"),
    path("operator/tenants/<str:organization>/limits/new", limits.new_limit, name="tenant-limit-new"),
    path(
        "operator/tenants/<str:organization>/limits/<str:limit>/change",
        limits.change_limit,
        name="tenant-limit-change",
    ),
    path(
        "operator/tenants/<str:organization>/limits/<str:limit>/clear",
        limits.clear_limit,
        name="tenant-limit-clear",
    ),
    path("operator/tenants/<str:organization>/tier", limits.assign_tier, name="tenant-tier"),
    path("operator/tenants/<str:organization>/tier/end", limits.end_override, name="tenant-tier-end"),
]
