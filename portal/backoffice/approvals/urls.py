"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.approvals import pages

_WELCOME = "operator/approvals/welcome/<str:organization>"

urlpatterns: list[URLPattern] = [
    path("operator/approvals/", pages.approvals, name="approvals"),
    path(f"{_WELCOME}/approve", pages.approve_welcome, name="welcome-approve"),
    path(f"{_WELCOME}/refuse", pages.refuse_welcome, name="welcome-refuse"),
    path("operator/approvals/<str:order>/approve", pages.approve, name="order-approve"),
    path("operator/approvals/<str:order>/refuse", pages.refuse, name="order-refuse"),
    path("operator/approvals/<str:order>/withdraw", pages.withdraw, name="order-withdraw"),
]
