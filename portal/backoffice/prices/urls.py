"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.prices import drafting, ending, pages, publishing, what_if

urlpatterns: list[URLPattern] = [
    path("operator/prices", pages.prices, name="prices"),
    path("operator/prices/new", drafting.new, name="price-new"),
    path("operator/prices/<str:price>", pages.price, name="price"),
    path("operator/prices/<str:price>/copy", drafting.copy, name="price-copy"),
    path("operator/prices/<str:price>/edit", drafting.edit, name="price-edit"),
    path("operator/prices/<str:price>/discard", drafting.discard, name="price-discard"),
    path("operator/prices/<str:price>/what-if", what_if.what_if, name="price-what-if"),
    path("operator/prices/<str:price>/what-if.csv", what_if.what_if_csv, name="price-what-if-csv"),
    path("operator/prices/<str:price>/publish", publishing.publish, name="price-publish"),
    path("operator/prices/<str:price>/end", ending.end, name="price-end"),
]
