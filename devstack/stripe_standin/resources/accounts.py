"""The account itself."""

from __future__ import annotations

from devstack.stripe_standin.routing import Call, route
from devstack.stripe_standin.store import Obj

# Alipay and WeChat Pay have none: they come with cards.
_CAPABILITIES = {
    "card": "card_payments",
    "link": "link_payments",
    "sepa_debit": "sepa_debit_payments",
    "us_bank_account": "us_bank_account_ach_payments",
}


@route("GET", "/v1/account", "account_read")
def retrieve(call: Call) -> Obj:
    settings = call.world.settings
    return {
        "id": call.world.account_id,
        "object": "account",
        "business_profile": {"name": "Stand-in for Stripe", "support_email": None, "url": None},
        "business_type": "company",
        "capabilities": {
            capability: "active" for method, capability in _CAPABILITIES.items() if method in settings.methods
        },
        "charges_enabled": True,
        "country": "US",
        "created": 1_700_000_000,
        "default_currency": "usd",
        "details_submitted": True,
        "email": "stand-in@example.com",
        "payouts_enabled": True,
        "settings": {
            "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
            "card_payments": {
                "statement_descriptor_prefix": None,
                "statement_descriptor_prefix_kana": None,
                "statement_descriptor_prefix_kanji": None,
            },
            "dashboard": {"display_name": "Stand-in for Stripe", "timezone": "Etc/UTC"},
            "payments": {
                "statement_descriptor": "STAND-IN",
                "statement_descriptor_kana": None,
                "statement_descriptor_kanji": None,
            },
        },
        "type": "standard",
    }
