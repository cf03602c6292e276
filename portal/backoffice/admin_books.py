"""The Django admin's read-only pages of closed months."""

from django.contrib import admin

from portal.backoffice.read_only import read_only
from quotas.models import ClosedBalance, ClosedMonth

site = admin.site

site.register(ClosedMonth, read_only("month", "closed_by", "closed_at", "reason", newest_first=False))
site.register(
    ClosedBalance,
    read_only(
        "month",
        "currency",
        "account",
        "opening_nanos",
        "debits_nanos",
        "credits_nanos",
        "closing_nanos",
        filters=("currency", "account"),
    ),
)
