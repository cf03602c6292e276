"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.postpaid import agreements, credit_notes, invoices

_HERE = "operator/postpaid"

urlpatterns: list[URLPattern] = [
    path(f"{_HERE}/", invoices.postpaid, name="postpaid"),
    path(f"{_HERE}/organizations/<str:organization>/agree", agreements.agree, name="postpaid-agree"),
    path(f"{_HERE}/organizations/<str:organization>/end", agreements.end, name="postpaid-end"),
    path(f"{_HERE}/invoices/<str:monthly_invoice>/", invoices.invoice, name="postpaid-invoice"),
    path(
        f"{_HERE}/invoices/<str:monthly_invoice>/credit-note",
        credit_notes.credit_note,
        name="postpaid-credit-note",
    ),
]
