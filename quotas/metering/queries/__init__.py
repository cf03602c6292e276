"""Reads of usage: charts and sums, lists and receipts of calls, exports, activity and speed."""

from quotas.metering.queries.activity import (
    CallHealth,
    ModelSpeed,
    call_health,
    has_any_request,
    last_used,
    median_ttft_ms,
    model_speeds,
    requests_since,
)
from quotas.metering.queries.confirmed import Sureness, confirmed_requests, sureness
from quotas.metering.queries.exports import iter_requests_csv, iter_usage_csv
from quotas.metering.queries.labels import KeyLabel, ModelLabel
from quotas.metering.queries.receipt import Receipt, RequestNotFound, request_receipt
from quotas.metering.queries.requests import (
    InvalidRequestFilter,
    RequestFilter,
    RequestPage,
    RequestRow,
    list_requests,
)
from quotas.metering.queries.usage import (
    InvalidPeriod,
    Sums,
    UsageSummary,
    UsageTotals,
    usage_summary,
    usage_totals,
)

__all__ = [
    "CallHealth",
    "InvalidPeriod",
    "InvalidRequestFilter",
    "KeyLabel",
    "ModelLabel",
    "ModelSpeed",
    "Receipt",
    "RequestFilter",
    "RequestNotFound",
    "RequestPage",
    "RequestRow",
    "Sums",
    "Sureness",
    "UsageSummary",
    "UsageTotals",
    "call_health",
    "confirmed_requests",
    "has_any_request",
    "iter_requests_csv",
    "iter_usage_csv",
    "last_used",
    "list_requests",
    "median_ttft_ms",
    "model_speeds",
    "request_receipt",
    "requests_since",
    "sureness",
    "usage_summary",
    "usage_totals",
]
