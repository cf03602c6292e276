"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.audit import pages

urlpatterns: list[URLPattern] = [
    path("operator/audit/", pages.audit, name="audit"),
    path("operator/audit/audit.csv", pages.audit_csv, name="audit-csv"),
]
