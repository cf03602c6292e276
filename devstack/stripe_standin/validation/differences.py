"""Where the installed client and the published description differ, for the endpoints that we use.

The client speaks 2026-10-28.endive, the description is of 2026-05-27.dahlia. Each difference was looked at.
Of a part that one side lacks, the topmost name stands here. A test compares both anew, and fails when this
list is not exactly what it finds.
"""

from __future__ import annotations

# Options of payment methods that this product does not name anywhere.
_METHODS_OF_INTENTS = (
    "payment_method_data.fpx.account_holder_type",
    "payment_method_data.paypay",
    "payment_method_data.sequra",
    "payment_method_options.billie.company_details",
    "payment_method_options.billie.reference",
    "payment_method_options.blik.mandate_options",
    "payment_method_options.card.moto",
    "payment_method_options.card.setup_credential_usage",
    "payment_method_options.card.stored_credential_usage",
    "payment_method_options.link.persistent_token",
    "payment_method_options.payco.setup_future_usage",
    "payment_method_options.paypay",
    "payment_method_options.samsung_pay.setup_future_usage",
    "payment_method_options.satispay.setup_future_usage",
    "payment_method_options.sequra",
    "payment_method_options.sunbit",
    "radar_options.referrer",
)
_METHODS_OF_INVOICES = (
    "payment_settings.payment_method_options.billie",
    "payment_settings.payment_method_options.blik",
)
_METHODS_OF_SESSIONS = (
    "payment_method_options.blik",
    "payment_method_options.card.restrictions.funding_types_blocked",
    "payment_method_options.payco.setup_future_usage",
    "payment_method_options.samsung_pay.setup_future_usage",
    "payment_method_options.sequra",
    "payment_method_options.sunbit",
)
# Subscriptions, which this product does not sell.
_SUBSCRIPTIONS = (
    "subscription_data.billing_cycle_anchor_config",
    "subscription_data.invoice_settings.account_tax_ids",
    "subscription_data.invoice_settings.custom_fields",
    "subscription_data.invoice_settings.description",
    "subscription_data.invoice_settings.footer",
)

_CLIENT_ONLY: dict[str, tuple[str, ...]] = {
    # Of the hosted pages: what happens when a link has expired, and pausing a subscription.
    "POST /v1/billing_portal/sessions": ("after_expiration", "flow_data.subscription_pause"),
    # Endive's filter in place of payment_method_types; where a service is performed, for taxes.
    "POST /v1/checkout/sessions": (
        "allowed_payment_method_types",
        "line_items.[].price_data.product_data.tax_details",
        *_METHODS_OF_SESSIONS,
        *_SUBSCRIPTIONS,
    ),
    "POST /v1/checkout/sessions/{session}": (
        "line_items.[].price_data.product_data.tax_details",
        "payment_intent_data",
    ),
    # Whether to check an address or a tax id at once.
    "POST /v1/customers": ("validate",),
    "POST /v1/customers/{customer}": ("validate",),
    "POST /v1/invoices": _METHODS_OF_INVOICES,
    "POST /v1/invoices/{invoice}": _METHODS_OF_INVOICES,
    "POST /v1/invoices/{invoice}/add_lines": ("lines.[].price_data.product_data.tax_details",),
    # Where a service is performed, for taxes.
    "POST /v1/tax/calculations": ("line_items.[].performance_location",),
    "POST /v1/payment_intents": ("allowed_payment_method_types", *_METHODS_OF_INTENTS),
    "POST /v1/payment_intents/{intent}/confirm": ("allowed_payment_method_types", *_METHODS_OF_INTENTS),
}
_DESCRIPTION_ONLY: dict[str, tuple[str, ...]] = {
    # Endive refuses it: 400 payment_method_types_no_longer_supported.
    "POST /v1/checkout/sessions": ("line_items.[].dynamic_tax_rates", "payment_method_types"),
    "POST /v1/payment_intents": ("payment_method_types",),
    # Of publishable keys, which the client for servers leaves out.
    "POST /v1/payment_intents/{intent}/confirm": ("client_secret", "payment_method_types"),
    # Ways to pay from before payment methods.
    "POST /v1/customers/{customer}": (
        "bank_account",
        "card",
        "default_alipay_account",
        "default_bank_account",
        "default_card",
    ),
}

CLIENT_ONLY = frozenset((endpoint, name) for endpoint, names in _CLIENT_ONLY.items() for name in names)
DESCRIPTION_ONLY = frozenset(
    (endpoint, name) for endpoint, names in _DESCRIPTION_ONLY.items() for name in names
)
# (endpoint, parameter, value) that the client lists and the description, being older, does not.
NEWER_VALUES = frozenset(
    ("POST /v1/webhook_endpoints", "api_version", version)
    for version in ("2026-09-30.endive", "2026-10-28.endive")
)
# (object, field) of answers that the description does not have yet.
NEWER_FIELDS: frozenset[tuple[str, str]] = frozenset()
