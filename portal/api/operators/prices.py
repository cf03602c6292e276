"""Versions of prices: the list's and private ones; drafts are written, replaced and thrown away."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.conf import settings
from rest_framework import serializers

from models_catalog.pricing import affected, drafts, queries
from models_catalog.pricing.checks import InvalidTariff
from models_catalog.pricing.queries import VersionPage, VersionState
from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import OneOf, Page, PublicId, Strict, Text, page_of
from portal.api.operations import operation
from portal.api.operators.price_answers import (
    PriceContentBody,
    PriceIncreasesAnswer,
    PriceRowAnswer,
    PriceVersionAnswer,
    lines_of,
    problem_of,
    shown_increases,
    shown_row,
    shown_version,
    windows_of,
)
from portal.api.operators.tenants import ReasonBody
from portal.api.paging import identifier, page_json
from portal.pages.access import parse_id
from tenants.models import ManagementScope
from tenants.operations import audit

TAG: Final = "operators: prices"
PARTS: Final = {"price": "price"}
PRICE: Final = "prc_01k9zq5v3nf2t8x4m6r7w0y1ab"


class PriceParameters(Page):
    model = Text(required=False, max_length=120, help_text="Slug, `vendor/name`.")
    currency = Text(required=False, max_length=3)
    organization = PublicId(
        kind="organization", required=False, help_text="Only private prices of this organization."
    )
    state = OneOf(choices=[state.value for state in VersionState], required=False)


class PriceDraftBody(Strict):
    model = Text(max_length=120, help_text="Slug, `vendor/name`.")
    currency = Text(max_length=3, help_text="One of the installation's; of a private price the wallet's.")
    organization = PublicId(kind="organization", required=False, help_text="Left out: a list price.")
    copy_of = PublicId(
        kind="price", required=False, help_text="A version of the model to begin with; left out: empty."
    )


class DiscardedAnswer(serializers.Serializer[Any]):
    id = PublicId(kind="price")


PricePageAnswer = page_of(PriceRowAnswer, "PricePageAnswer")


class PriceList(OperatorEndpoint):
    @operation(
        id="listPrices",
        summary="List versions of prices",
        tag=TAG,
        action="price.list",
        scope=ManagementScope.PRICES_READ,
        parameters=PriceParameters,
        answer=PricePageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Versions of every state, newest first: of the list and private ones."""
        listing = call.listing
        filters = listing.filters
        organization, state = filters.get("organization"), filters.get("state")
        wanted: dict[str, Any] = {
            "currency": filters.get("currency", ""),
            "tenant_id": identifier(organization) if organization else None,
            "state": VersionState(state) if state else None,
            "now": call.now,
        }
        if "model" in filters:
            wanted["model_id"] = queries.model_of(slug=filters["model"])
            if wanted["model_id"] is None:
                return Answer(page_json([], None))
        before = identifier(listing.place[0]) if listing.place else None
        rows = queries.list_versions(**wanted, before=before, limit=listing.limit)
        goes_on = len(rows) == listing.limit and bool(
            queries.list_versions(**wanted, before=rows[-1].id, limit=1)
        )
        following = listing.cursor(rows[-1].id) if goes_on else None
        return Answer(page_json([shown_row(row) for row in rows], following))

    @operation(
        id="createPriceDraft",
        summary="Draft a price",
        tag=TAG,
        action="price.draft",
        scope=ManagementScope.PRICES_WRITE,
        body=PriceDraftBody,
        answer=PriceVersionAnswer,
        status=201,
        raises={
            drafts.ModelNotPriced: problems.REFUSED,
            drafts.WrongCurrency: problems.REFUSED,
            drafts.TooManyDrafts: problems.LIMIT_REACHED,
        },
        body_example={"model": "qwen/qwen3-32b", "currency": "USD", "copy_of": PRICE},
    )
    def post(self, call: Call) -> Answer:
        """Begin a draft of a list price, or of the private price of an organization. Nobody but operators
        sees it before it is published."""
        model_id = queries.model_of(slug=call.body["model"])
        if model_id is None:
            raise drafts.ModelNotPriced("there is no such model")
        version_id = drafts.create_draft(
            model_id=model_id,
            currency=call.body["currency"],
            currencies=settings.CURRENCIES,
            tenant_id=call.body.get("organization"),
            copy_of=call.body.get("copy_of"),
            actor=call.actor,
            now=call.now,
        )
        return Answer(shown_version(find_page(call, version_id)), status=201)


class PriceDetail(OperatorEndpoint):
    @operation(
        id="getPrice",
        summary="Read a version of a price",
        tag=TAG,
        action="price.read",
        scope=ManagementScope.PRICES_READ,
        parts=PARTS,
        answer=PriceVersionAnswer,
        raises={queries.PriceNotFound: problems.NOT_FOUND},
    )
    def get(self, call: Call, price: str) -> Answer:
        """One version, whatever its state, with its lines and windows, and what counts in its place."""
        return Answer(shown_version(find_page(call, parse_id("price", price))))

    @operation(
        id="replacePriceDraft",
        summary="Replace a draft's content",
        tag=TAG,
        action="price.edit",
        scope=ManagementScope.PRICES_WRITE,
        parts=PARTS,
        body=PriceContentBody,
        answer=PriceVersionAnswer,
        raises={drafts.DraftNotFound: problems.NOT_FOUND, drafts.DraftChanged: problems.CONFLICT},
        body_example={
            "time_zone": "Europe/Berlin",
            "lines": [
                {"token_class": "input", "price_per_million": "0.28"},
                {"token_class": "output", "price_per_million": "1.10"},
                {"token_class": "output", "window": "night", "price_per_million": "0.55"},
            ],
            "windows": [{"name": "night", "spans": [{"from_minute": 0, "to_minute": 360}]}],
        },
    )
    def put(self, call: Call, price: str) -> Answer:
        """Give a draft this content, all of it. It may lack prices until it is published: see `gaps`."""
        version_id = parse_id("price", price)
        try:
            drafts.update_draft(
                version_id=version_id,
                time_zone=call.body["time_zone"],
                lines=lines_of(call.body),
                windows=windows_of(call.body),
                actor=call.actor,
                now=call.now,
                expected=call.body.get("based_on"),
            )
        except InvalidTariff as error:
            raise problem_of(error) from None
        return Answer(shown_version(find_page(call, version_id)))


class PriceDiscarding(OperatorEndpoint):
    @operation(
        id="discardPriceDraft",
        summary="Discard a draft",
        tag=TAG,
        action="price.discard",
        scope=ManagementScope.PRICES_WRITE,
        parts=PARTS,
        body=ReasonBody,
        answer=DiscardedAnswer,
        raises={drafts.DraftNotFound: problems.NOT_FOUND, audit.ReasonMissing: problems.REFUSED},
        body_example={"reason": "Superseded by the draft of November"},
    )
    def post(self, call: Call, price: str) -> Answer:
        """Throw a draft away, with its what-ifs; the audit log keeps what it said."""
        version_id = parse_id("price", price)
        drafts.discard_draft(
            version_id=version_id,
            actor=call.actor,
            now=call.now,
            reason=audit.checked_reason(call.body["reason"]),
        )
        return Answer(DiscardedAnswer({"id": version_id}).data)


class PriceIncreases(OperatorEndpoint):
    @operation(
        id="listPriceIncreases",
        summary="Compare with the price in force",
        tag=TAG,
        action="price.read",
        scope=ManagementScope.PRICES_READ,
        parts=PARTS,
        answer=PriceIncreasesAnswer,
        raises={queries.PriceNotFound: problems.NOT_FOUND},
    )
    def get(self, call: Call, price: str) -> Answer:
        """In what a version is dearer than the price that counts now in its place."""
        page = find_page(call, parse_id("price", price))
        against = page.current.id if page.current else None
        found = affected.increases(version_id=page.row.id, against=against)
        return Answer(shown_increases(against, found, page.row.currency))


def find_page(call: Call, version_id: UUID) -> VersionPage:
    """Errors: queries.PriceNotFound."""
    return queries.version_page(version_id=version_id, now=call.now)
