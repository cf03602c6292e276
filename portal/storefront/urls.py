"""What anybody may see, and the choices of a browser."""

from django.urls import path

from portal.storefront import pages, styleguide, views

app_name = "storefront"
urlpatterns = [
    path("", pages.landing, name="landing"),
    path("models", pages.catalog, name="catalog"),
    path("models/<path:slug>", pages.model, name="model"),
    path("robots.txt", pages.robots, name="robots"),
    path("styleguide", styleguide.styleguide, name="styleguide"),
    path("language", views.language, name="language"),
    path("theme", views.theme, name="theme"),
]
