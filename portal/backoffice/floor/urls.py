"""The address of the factory floor; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.floor import pages

urlpatterns: list[URLPattern] = [path("operator/floor", pages.floor, name="floor")]
