"""The catalog as this organization sees it, and picking from it."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404
from rest_framework import serializers

from models_catalog import operations as catalog_operations
from models_catalog import queries as catalog_queries
from models_catalog.queries import ModelPage, ModelRow
from portal.api import problems
from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Moment, Money, OneOf, Page, PublicId, Text, page_of
from portal.api.operations import operation
from portal.api.paging import page_json
from tenants.models import ManagementScope
from tenants.permissions import Permission

_PARTS: Final = {"vendor": r"^[a-z0-9][a-z0-9._-]*$", "name": r"^[a-z0-9][a-z0-9._:-]*$"}


class ModelListParameters(Page):
    enabled = OneOf(
        choices=["true"], required=False, help_text="Only models that the organization has enabled."
    )
    search = Text(max_length=200, required=False, help_text="Words of name or description.")


class ClassPriceAnswer(serializers.Serializer[Any]):
    """What a million tokens of a class cost now, and at the cheapest and dearest time of the week."""

    now = Money()
    cheapest = Money()
    dearest = Money()


class ListedPriceAnswer(serializers.Serializer[Any]):
    """The organization's price of the standard tier for a short input, per million tokens."""

    input = ClassPriceAnswer()
    cached_input = ClassPriceAnswer()
    output = ClassPriceAnswer()
    is_private = serializers.BooleanField(help_text="Agreed with this organization.")
    has_bands = serializers.BooleanField(help_text="Longer inputs may cost otherwise.")


class ModelAnswer(serializers.Serializer[Any]):
    """A model on offer. price: null when it has none in the organization's currency."""

    id = PublicId(kind="model")
    slug = serializers.CharField(help_text="What calls name: `vendor/name`.")
    display_name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    context_tokens = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField()
    default_output_cap_tokens = serializers.IntegerField(help_text="Counts when a call says no max_tokens.")
    capabilities = serializers.ListField(child=serializers.CharField())
    created_at = Moment()
    is_enabled = serializers.BooleanField()
    price = ListedPriceAnswer(allow_null=True)


ModelPageAnswer = page_of(ModelAnswer, "ModelPageAnswer")


class PriceLineAnswer(serializers.Serializer[Any]):
    """One price per million units of a token class. window: null at all times without a line of their own."""

    token_class = serializers.CharField()
    service_tier = serializers.CharField()
    window = serializers.CharField(allow_null=True)
    input_from_tokens = serializers.IntegerField()
    input_to_tokens = serializers.IntegerField(allow_null=True, help_text="Exclusive; null is open.")
    price_per_million = Money(source="price_nanos_per_million")


class SpanAnswer(serializers.Serializer[Any]):
    """Minutes of the week from Monday 00:00 in the price's time zone, half-open."""

    from_minute = serializers.IntegerField()
    to_minute = serializers.IntegerField()


class WindowAnswer(serializers.Serializer[Any]):
    name = serializers.CharField()
    is_open = serializers.BooleanField(help_text="At the moment of the answer.")
    spans = SpanAnswer(many=True)


class PriceAnswer(serializers.Serializer[Any]):
    """A published version of a price, with all its lines."""

    id = PublicId(kind="price", source="version_id")
    currency = serializers.CharField()
    time_zone = serializers.CharField()
    active_from = Moment()
    active_to = Moment(allow_null=True)
    is_private = serializers.BooleanField()
    lines = PriceLineAnswer(many=True)
    windows = WindowAnswer(many=True)


class PriceChangeAnswer(serializers.Serializer[Any]):
    """From `at` on another price counts; null: none, so the model cannot be called then."""

    at = Moment()
    price = PriceAnswer(allow_null=True)


class ModelDetailAnswer(serializers.Serializer[Any]):
    model = ModelAnswer()
    price = PriceAnswer(allow_null=True)
    next_change = PriceChangeAnswer(allow_null=True, help_text="As far as one is published.")


class ModelList(TenantEndpoint):
    @operation(
        id="listModels",
        summary="List models",
        tag="models",
        action="model.list",
        scope=ManagementScope.MODELS_READ,
        permission=Permission.SEE_MODELS,
        parameters=ModelListParameters,
        answer=ModelPageAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """The models on offer with the organization's own prices: by name, or by how well a search fits."""
        listing = call.listing
        search = listing.filters.get("search", "")
        after = str(listing.place[0]) if listing.place else None
        if "enabled" in listing.filters:
            rows, following = _enabled(call, search, after, listing.limit)
        else:
            found = catalog_queries.list_models(
                currency=call.organization.currency,
                now=call.now,
                search=search,
                sort="relevance" if search else "name",
                tenant_id=call.tenant_id,
                after=after,
                limit=listing.limit,
            )
            rows, following = list(found.rows), found.next
        shown = [_shown(call, row) for row in rows]
        return Answer(page_json(shown, listing.cursor(following) if following else None))


class ModelDetail(TenantEndpoint):
    @operation(
        id="getModel",
        summary="Read a model",
        tag="models",
        action="model.read",
        scope=ManagementScope.MODELS_READ,
        permission=Permission.SEE_MODELS,
        parts=_PARTS,
        answer=ModelDetailAnswer,
    )
    def get(self, call: TenantCall, vendor: str, name: str) -> Answer:
        """One model, every line of the price that counts here, and the next published change."""
        page = _page(call, vendor, name)
        return Answer(ModelDetailAnswer(page, context=call.money).data)


class ModelEnabling(TenantEndpoint):
    @operation(
        id="enableModel",
        summary="Enable a model",
        tag="models",
        action="model.enable",
        scope=ManagementScope.MODELS_WRITE,
        permission=Permission.ENABLE_MODELS,
        parts=_PARTS,
        answer=ModelAnswer,
        raises={catalog_operations.ModelNotFound: problems.NOT_FOUND},
    )
    def post(self, call: TenantCall, vendor: str, name: str) -> Answer:
        """Programs of the organization may call the model from now on. Enabling it again changes nothing."""
        slug = _page(call, vendor, name).model.slug
        catalog_operations.enable_model(tenant_id=call.tenant_id, slug=slug)
        return Answer(_shown(call, _page(call, vendor, name).model))


class ModelDisabling(TenantEndpoint):
    @operation(
        id="disableModel",
        summary="Disable a model",
        tag="models",
        action="model.disable",
        scope=ManagementScope.MODELS_WRITE,
        permission=Permission.ENABLE_MODELS,
        parts=_PARTS,
        answer=ModelAnswer,
    )
    def post(self, call: TenantCall, vendor: str, name: str) -> Answer:
        """The next call of the model is refused. Disabling it again changes nothing."""
        slug = _page(call, vendor, name).model.slug
        catalog_operations.end_grant(tenant_id=call.tenant_id, slug=slug, now=call.now)
        return Answer(_shown(call, _page(call, vendor, name).model))


def _enabled(
    call: TenantCall, search: str, after: str | None, limit: int
) -> tuple[list[ModelRow], str | None]:
    found = catalog_queries.enabled_models(
        tenant_id=call.tenant_id, currency=call.organization.currency, now=call.now
    )
    words = search.lower().split()
    rows = [
        row
        for row in found
        if all(word in f"{row.slug} {row.display_name} {row.description}".lower() for word in words)
    ]
    slugs = [row.slug for row in rows]
    start = slugs.index(after) + 1 if after in slugs else 0
    shown = rows[start : start + limit]
    return shown, shown[-1].slug if len(rows) > start + len(shown) else None


def _page(call: TenantCall, vendor: str, name: str) -> ModelPage:
    """Raises Http404 for what is not on offer."""
    if "\0" in vendor + name:
        raise Http404
    try:
        return catalog_queries.model_page(
            slug=f"{vendor}/{name}",
            currency=call.organization.currency,
            now=call.now,
            tenant_id=call.tenant_id,
        )
    except catalog_queries.ModelNotFound:
        raise Http404 from None


def _shown(call: TenantCall, row: ModelRow) -> Any:
    return ModelAnswer(row, context=call.money).data
