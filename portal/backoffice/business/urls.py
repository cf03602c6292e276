"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.business import pages

urlpatterns: list[URLPattern] = [
    path("operator/business", pages.business, name="business"),
    path("operator/business.csv", pages.business_csv, name="business-csv"),
]
