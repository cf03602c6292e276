"""The addresses of this group of pages; the namespace is backoffice."""

from django.urls import URLPattern, path

from portal.backoffice.bank import invoices, receipts

_HERE = "operator/bank"
_RECEIPT = f"{_HERE}/receipts/<str:bank_receipt>"
_PROFILE = f"{_HERE}/profiles/<str:organization>"
_INVOICE = f"{_HERE}/invoices/<str:invoice>"

urlpatterns: list[URLPattern] = [
    path(f"{_HERE}/", receipts.receipts, name="bank"),
    path(f"{_HERE}/record", receipts.record, name="receipt-record"),
    path(f"{_RECEIPT}/approve", receipts.approve, name="receipt-approve"),
    path(f"{_RECEIPT}/refuse", receipts.refuse, name="receipt-refuse"),
    path(f"{_RECEIPT}/withdraw", receipts.withdraw, name="receipt-withdraw"),
    path(f"{_HERE}/invoices/", invoices.invoices, name="bank-invoices"),
    path(f"{_PROFILE}/verify", invoices.verify_profile, name="profile-verify"),
    path(f"{_PROFILE}/refuse", invoices.refuse_profile, name="profile-refuse"),
    path(f"{_INVOICE}/issue", invoices.issue, name="invoice-issue"),
    path(f"{_INVOICE}/refuse", invoices.refuse, name="invoice-refuse"),
    path(f"{_INVOICE}/credit", invoices.credit, name="invoice-credit"),
    path(f"{_HERE}/documents/<str:document>", invoices.document, name="invoice-document"),
]
