"""The page of the playground: what a member may pick, and the texts that its script needs."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog.queries import ModelRow, enabled_models
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page
from portal.pages.tags import NONE, amount_text
from portal.playground.messages import MAX_MESSAGE_BYTES
from portal.playground.texts import script_texts
from tenants.permissions import Permission


@organization_page(Permission.USE_PLAYGROUND)
def page(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The conversation is the browser's alone: nothing of it is in this page or its address."""
    models = enabled_models(tenant_id=organization.tenant_id, currency=organization.currency, now=utc_now())
    context: dict[str, Any] = {
        "section": "playground",
        "models": models,
        "script_data": {
            "socket": f"/ws/o/{organization.public_id}/playground",
            "organization": organization.public_id,
            "currency": organization.currency,
            "apiBase": settings.API_BASE,
            "maxBytes": MAX_MESSAGE_BYTES,
            "signIn": f"{reverse('account_login')}?next={request.path}",
            "models": [_model(model) for model in models],
            "texts": script_texts(),
        },
        "examples": _examples(),
        "may_enable": organization.may(Permission.ENABLE_MODELS),
        "may_pay": organization.may(Permission.PAY),
    }
    return render(request, "playground/page.html", context)


def _model(model: ModelRow) -> dict[str, Any]:
    price = model.price
    return {
        "slug": model.slug,
        "name": model.display_name,
        "context": model.context_tokens,
        "maxOutput": model.max_output_tokens,
        "defaultCap": model.default_output_cap_tokens,
        # Per million tokens, now, as people read it.
        "prices": [
            amount_text(found.now, price.currency)
            for found in (price.input, price.cached_input, price.output)
        ]
        if price
        else [NONE] * 3,
    }


def _examples() -> list[str]:
    return [
        _("Explain double-entry bookkeeping to a programmer in five sentences."),
        _("Write a Python function that merges two sorted lists, with tests."),
        _("Draft a friendly e-mail that moves a meeting from Tuesday to Thursday."),
    ]
