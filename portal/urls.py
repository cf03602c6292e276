"""Every page of the web process, door by door."""

from django.contrib import admin
from django.urls import include, path

from portal import health

urlpatterns = [
    path("", include("portal.storefront.urls")),
    path("", include("portal.accounts.urls")),
    path("", include("portal.console.urls")),
    path("", include("portal.playground.urls")),
    path("", include("portal.backoffice.urls")),
    path("", include("portal.api.urls")),
    path("", include("portal.webhooks.urls")),
    path("", include("portal.ingest.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics_page, name="metrics"),
    path("admin/", admin.site.urls),
]

handler400 = "portal.pages.failures.bad_request"
handler500 = "portal.pages.failures.server_error"
