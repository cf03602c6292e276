"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import path

from portal.backoffice.apikeys import pages

urlpatterns = [
    path("operator/keys", pages.operator_keys, name="operator-keys"),
    path("operator/keys/new", pages.new_operator_key, name="operator-key-new"),
    path("operator/keys/<str:operator_key>/revoke", pages.revoke_operator_key, name="operator-key-revoke"),
]
