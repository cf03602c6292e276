"""An organization's pages, and the way to them."""

from django.urls import path

from portal.console import (
    bundles,
    chooser,
    keys,
    limits,
    management_keys,
    members,
    models,
    monthly_invoices,
    overview,
    recharge,
    settings,
    statement,
    usage,
)
from portal.console.billing import balance, landing, papers
from portal.console.invoices import pages as invoices
from portal.console.invoices import profile as invoice_profile
from portal.console.invoices import transfers

app_name = "console"
urlpatterns = [
    path("o/", chooser.chooser, name="chooser"),
    path("o/new", chooser.new_organization, name="new"),
    # Overview
    path("o/<str:organization>/", overview.overview, name="overview"),
    path("o/<str:organization>/live", overview.live, name="overview-live"),
    path("o/<str:organization>/checklist", overview.checklist, name="checklist"),
    # Usage and statement
    path("o/<str:organization>/usage/", usage.usage, name="usage"),
    path("o/<str:organization>/usage/usage.csv", usage.usage_csv, name="usage-csv"),
    path("o/<str:organization>/usage/requests.csv", usage.requests_csv, name="requests-csv"),
    path("o/<str:organization>/usage/<str:request_id>", usage.receipt, name="request"),
    path("o/<str:organization>/statement/", statement.statement, name="statement"),
    path("o/<str:organization>/statement/statement.csv", statement.statement_csv, name="statement-csv"),
    path("o/<str:organization>/statement/statement.pdf", statement.statement_pdf, name="statement-pdf"),
    # Billing
    path("o/<str:organization>/billing/", balance.billing, name="billing"),
    path("o/<str:organization>/billing/add-credit", balance.add_credit, name="add-credit"),
    path("o/<str:organization>/billing/payment-methods", balance.payment_methods, name="payment-methods"),
    path("o/<str:organization>/billing/invoices", papers.invoices, name="invoices"),
    path("o/<str:organization>/billing/top-ups/<str:top_up>/", landing.top_up, name="top-up"),
    path(
        "o/<str:organization>/billing/top-ups/<str:top_up>/state", landing.top_up_state, name="top-up-state"
    ),
    path(
        "o/<str:organization>/billing/top-ups/<str:top_up>/cancel",
        landing.cancel_top_up,
        name="top-up-cancel",
    ),
    path("o/<str:organization>/billing/recharge/", recharge.recharge_page, name="recharge"),
    path("o/<str:organization>/billing/recharge/set", recharge.set_recharge, name="recharge-set"),
    path("o/<str:organization>/billing/recharge/off", recharge.turn_off, name="recharge-off"),
    path("o/<str:organization>/billing/recharge/card", recharge.save_method, name="recharge-method"),
    path("o/<str:organization>/billing/recharge/confirm", recharge.confirm_payment, name="recharge-confirm"),
    # Monthly invoices
    path(
        "o/<str:organization>/billing/monthly-invoices/",
        monthly_invoices.monthly_invoices,
        name="monthly-invoices",
    ),
    path(
        "o/<str:organization>/billing/monthly-invoices/<str:monthly_invoice>/",
        monthly_invoices.monthly_invoice,
        name="monthly-invoice",
    ),
    # Verifiable bills
    path("o/<str:organization>/billing/verifiable/", bundles.bundles, name="bundles"),
    path("o/<str:organization>/billing/verifiable/make", bundles.make_bundle, name="bundle-make"),
    path("o/<str:organization>/billing/verifiable/<str:bundle>.zip", bundles.bundle_file, name="bundle-file"),
    # Bank transfers and invoices on request
    path("o/<str:organization>/billing/bank-transfer", transfers.bank_transfer, name="bank-transfer"),
    path(
        "o/<str:organization>/billing/bank-transfer/reference",
        transfers.bank_reference,
        name="bank-reference",
    ),
    path(
        "o/<str:organization>/billing/requested-invoices/",
        invoices.requested_invoices,
        name="requested-invoices",
    ),
    path(
        "o/<str:organization>/billing/requested-invoices/profile",
        invoice_profile.invoice_profile,
        name="invoice-profile",
    ),
    path(
        "o/<str:organization>/billing/requested-invoices/request",
        invoices.request_invoice,
        name="invoice-request",
    ),
    path(
        "o/<str:organization>/billing/requested-invoices/<str:invoice>/cancel",
        invoices.cancel_invoice,
        name="invoice-cancel",
    ),
    path(
        "o/<str:organization>/billing/requested-invoices/documents/<str:document>",
        invoices.invoice_document,
        name="invoice-document",
    ),
    # API keys
    path("o/<str:organization>/keys/", keys.keys, name="keys"),
    path("o/<str:organization>/keys/new", keys.new_key, name="key-new"),
    path("o/<str:organization>/keys/<str:key>/edit", keys.edit_key, name="key-edit"),
    path("o/<str:organization>/keys/<str:key>/rotate", keys.rotate_key, name="key-rotate"),
    path("o/<str:organization>/keys/<str:key>/revoke", keys.revoke_key, name="key-revoke"),
    # Management keys
    path("o/<str:organization>/management-keys/", management_keys.management_keys, name="management-keys"),
    path(
        "o/<str:organization>/management-keys/new",
        management_keys.new_management_key,
        name="management-key-new",
    ),
    path(
        "o/<str:organization>/management-keys/<str:management_key>/revoke",
        management_keys.revoke_management_key,
        name="management-key-revoke",
    ),
    # Models
    path("o/<str:organization>/models/", models.models, name="models"),
    path("o/<str:organization>/models/<path:slug>/enable", models.enable, name="model-enable"),
    path("o/<str:organization>/models/<path:slug>/disable", models.disable, name="model-disable"),
    # Limits
    path("o/<str:organization>/limits", limits.limits, name="limits"),
    path("o/<str:organization>/limits/new", limits.new_limit, name="limit-new"),
    path("o/<str:organization>/limits/<str:limit>/change", limits.change_limit, name="limit-change"),
    path("o/<str:organization>/limits/<str:limit>/remove", limits.remove_limit, name="limit-remove"),
    # Members
    path("o/<str:organization>/members/", members.members, name="members"),
    path("o/<str:organization>/members/invite", members.invite, name="invite"),
    path("o/<str:organization>/members/leave", members.leave, name="leave"),
    path(
        "o/<str:organization>/members/invitations/<str:invitation>/resend",
        members.resend,
        name="invitation-resend",
    ),
    path(
        "o/<str:organization>/members/invitations/<str:invitation>/revoke",
        members.revoke,
        name="invitation-revoke",
    ),
    path("o/<str:organization>/members/<str:member>/role", members.change_role, name="member-role"),
    path("o/<str:organization>/members/<str:member>/remove", members.remove, name="member-remove"),
    # Settings
    path("o/<str:organization>/settings/", settings.settings_page, name="settings"),
]
