"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.tenants import actions, pages

_ONE = "operator/tenants/<str:organization>"

urlpatterns: list[URLPattern] = [
    path("operator/tenants/", pages.tenants, name="tenants"),
    path(f"{_ONE}/", pages.tenant, name="tenant"),
    path(f"{_ONE}/requests/", pages.requests, name="tenant-requests"),
    path(f"{_ONE}/requests/<str:request_id>", pages.receipt, name="tenant-request"),
    path(f"{_ONE}/suspend", actions.suspend, name="tenant-suspend"),
    path(f"{_ONE}/resume", actions.resume, name="tenant-resume"),
    path(f"{_ONE}/note", actions.note, name="tenant-note"),
    path(f"{_ONE}/credit", actions.credit, name="tenant-credit"),
    path(f"{_ONE}/keys/<str:key>/revoke", actions.revoke_key, name="tenant-key-revoke"),
]
