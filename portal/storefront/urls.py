"""What anybody may see, and the choices of a browser."""

from django.urls import path

from portal.storefront import bundles, pages, styleguide, views

app_name = "storefront"
urlpatterns = [
    path("", pages.landing, name="landing"),
    path("models", pages.catalog, name="catalog"),
    path("models/<path:slug>", pages.model, name="model"),
    path(".well-known/sluice-bundle-keys.json", bundles.bundle_keys, name="bundle-keys"),
    path("verify_bundle.py", bundles.verify_bundle, name="verify-bundle"),
    path("robots.txt", pages.robots, name="robots"),
    path("styleguide", styleguide.styleguide, name="styleguide"),
    path("language", views.language, name="language"),
    path("theme", views.theme, name="theme"),
]
