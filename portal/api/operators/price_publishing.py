"""From when a price counts, and until when: publishing a draft, ending a private price."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from rest_framework import serializers

from models_catalog.pricing import drafts
from models_catalog.pricing import publish as publishing
from models_catalog.pricing.locking import CatalogBusy
from models_catalog.pricing.publish import Publication
from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, OneOf, Parameters, PublicId, Strict, Text, Truth
from portal.api.operations import operation
from portal.api.operators.price_answers import IncreaseAnswer
from portal.api.operators.prices import PARTS, TAG, find_page
from portal.api.operators.tenants import reason_field
from portal.pages.access import parse_id
from tenants.models import ManagementScope
from tenants.operations import audit

MAX_PAYERS: Final = 200


class PayerAnswer(serializers.Serializer[Any]):
    """An organization that pays more from `at` on. before: the version that it pays until then."""

    organization = PublicId(kind="organization", source="tenant_id")
    name = serializers.CharField()
    at = Moment()
    before = PublicId(kind="price", allow_null=True)
    increases = IncreaseAnswer(many=True)


class PublicationAnswer(serializers.Serializer[Any]):
    """What a change does. follows: the version that ends at this moment; withdraws: scheduled versions that
    never come; earliest_at: when it may begin, given who pays more."""

    price = PublicId(kind="price", source="version_id")
    active_from = Moment()
    active_to = Moment(allow_null=True)
    follows = PublicId(kind="price", source="ends", allow_null=True)
    withdraws = serializers.ListField(child=PublicId(kind="price"))
    earliest_at = Moment()
    content_sha256 = serializers.CharField(allow_blank=True)
    affected_count = serializers.IntegerField(help_text="Organizations that it reaches.")
    payer_count = serializers.IntegerField(help_text="Those that pay more; they are told by mail.")
    payers = PayerAnswer(many=True, help_text=f"By name, {MAX_PAYERS} at most.")


class PublicationParameters(Parameters):
    active_from = Moment(
        required=False, help_text="From when it would count. Left out: as soon as prices can change at all."
    )
    replaces_scheduled = OneOf(
        choices=["true"], required=False, help_text="As if everything scheduled later were withdrawn."
    )


class PublicationBody(Strict):
    active_from = Moment(help_text="From when it counts, at least a minute ahead.")
    replaces_scheduled = Truth(
        required=False, default=False, help_text="true: withdraw what is scheduled later."
    )
    based_on = Text(
        required=False,
        max_length=64,
        help_text="`content_sha256` of what was read: 409 when somebody else has changed the draft since.",
    )
    reason = reason_field("The audit log keeps it; organizations do not see it.")


class EndBody(Strict):
    ends_at = Moment(help_text="From when the list counts instead, at least a minute ahead.")
    reason = reason_field("The audit log keeps it; organizations do not see it.")


_MOMENTS: Final = {
    publishing.InvalidMoment: problems.REFUSED,
    publishing.NoticeTooShort: problems.REFUSED,
    CatalogBusy: problems.CONFLICT,
    audit.ReasonMissing: problems.REFUSED,
}


def notice_period() -> timedelta:
    """How long before an increase those who pay it hear of it."""
    return timedelta(days=settings.TUNING["SLUICE_PRICE_NOTICE_DAYS"])


class PricePublication(OperatorEndpoint):
    @operation(
        id="planPublication",
        summary="See what publishing would do",
        tag=TAG,
        action="price.read",
        scope=ManagementScope.PRICES_READ,
        parts=PARTS,
        parameters=PublicationParameters,
        answer=PublicationAnswer,
        raises={
            drafts.DraftNotFound: problems.NOT_FOUND,
            publishing.IncompleteDraft: problems.REFUSED,
            publishing.MomentTaken: problems.CONFLICT,
        },
    )
    def get(self, call: Call, price: str) -> Answer:
        """Whom a draft would reach from a moment on, and what would get dearer for whom. A moment that is too
        early is planned all the same; `earliest_at` says which one is not."""
        version_id = parse_id("price", price)
        plan = publishing.plan_publication(
            version_id=version_id,
            active_from=call.parameters.get("active_from", call.now + publishing.MIN_LEAD),
            notice=notice_period(),
            now=call.now,
            replaces_scheduled="replaces_scheduled" in call.parameters,
        )
        return Answer(_shown(call, plan))

    @operation(
        id="publishPrice",
        summary="Publish a draft",
        tag=TAG,
        action="price.publish",
        scope=ManagementScope.PRICES_WRITE,
        parts=PARTS,
        body=PublicationBody,
        answer=PublicationAnswer,
        raises={
            **_MOMENTS,
            drafts.DraftNotFound: problems.NOT_FOUND,
            drafts.DraftChanged: problems.CONFLICT,
            publishing.IncompleteDraft: problems.REFUSED,
            publishing.MomentTaken: problems.CONFLICT,
        },
        body_example={"active_from": "2026-12-07T00:00:00+01:00", "reason": "Energy costs less from 2027 on"},
    )
    def post(self, call: Call, price: str) -> Answer:
        """The draft counts from a moment ahead, and what counted until then ends at that moment. An increase
        keeps the installation's notice, and who pays more is told by mail."""
        plan = publishing.publish_draft(
            version_id=parse_id("price", price),
            active_from=call.body["active_from"],
            notice=notice_period(),
            actor=call.actor,
            reason=call.body["reason"],
            now=call.now,
            replaces_scheduled=call.body["replaces_scheduled"],
            expected=call.body.get("based_on"),
        )
        return Answer(_shown(call, plan))


class PrivatePriceEnd(OperatorEndpoint):
    @operation(
        id="endPrivatePrice",
        summary="End a private price",
        tag=TAG,
        action="price.end",
        scope=ManagementScope.PRICES_WRITE,
        parts=PARTS,
        body=EndBody,
        answer=PublicationAnswer,
        raises={**_MOMENTS, publishing.NotAPrivatePrice: problems.NOT_FOUND},
        body_example={"ends_at": "2027-01-01T00:00:00Z", "reason": "The contract ends"},
    )
    def post(self, call: Call, price: str) -> Answer:
        """From a moment on the list counts for the organization. Where it is dearer, the notice is kept."""
        plan = publishing.end_private_price(
            version_id=parse_id("price", price),
            ends_at=call.body["ends_at"],
            notice=notice_period(),
            actor=call.actor,
            reason=call.body["reason"],
            now=call.now,
        )
        return Answer(_shown(call, plan))


def _shown(call: Call, plan: Publication) -> Any:
    version = find_page(call, plan.version_id).row
    payers = plan.payers
    content = {
        "version_id": plan.version_id,
        "active_from": plan.active_from,
        "active_to": plan.active_to,
        "ends": plan.ends if plan.ends != plan.version_id else None,
        "withdraws": list(plan.withdraws),
        "earliest_at": plan.earliest_at,
        "content_sha256": plan.content_sha256,
        "affected_count": len(plan.affected),
        "payer_count": len(payers),
        "payers": payers[:MAX_PAYERS],
    }
    return PublicationAnswer(content, context={"currency": version.currency}).data
