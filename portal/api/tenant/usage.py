"""What was used: sums of the hourly rollups, calls, and the receipt of each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.http import Http404
from rest_framework import serializers

from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Moment, Money, OneOf, Page, Parameters, PublicId, Text, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, moment, page_json
from portal.api.periods import bad_period, from_field, period_of, to_field
from portal.api.tenant.receipts import LabelledKey, LabelledModel, ReceiptAnswer
from portal.pages.access import parse_id
from quotas.metering.queries import (
    InvalidPeriod,
    InvalidRequestFilter,
    RequestFilter,
    RequestNotFound,
    Sums,
    Sureness,
    list_requests,
    request_receipt,
    usage_totals,
)
from quotas.models import AttemptOutcome, Basis, HoldState, UsageSource
from tenants.models import ManagementScope
from tenants.permissions import Permission


class _Slugs(serializers.ListField):
    child = Text(max_length=120)


class _Keys(serializers.ListField):
    child = PublicId(kind="api_key")


MODEL_FILTER: Final[Mapping[str, Any]] = {
    "required": False,
    "max_length": 50,
    "help_text": "Only these models, by slug; repeat the parameter for several.",
}
KEY_FILTER: Final[Mapping[str, Any]] = {
    "required": False,
    "max_length": 50,
    "help_text": "Only calls with these keys; repeat the parameter for several.",
}


class _Period(Parameters):
    """from is a word of the language, so the fields are put in by name."""

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": from_field(), "to": to_field(), **super().get_fields()}


class UsageParameters(_Period):
    bucket = OneOf(choices=["hour", "day", "month"], required=False, default="day", help_text="In UTC.")
    group_by = OneOf(choices=["model", "key"], required=False, default="model")
    model = _Slugs(**MODEL_FILTER)
    key = _Keys(**KEY_FILTER)


class SumsAnswer(serializers.Serializer[Any]):
    """Usage added up. Cached is a part of the prompt, reasoning of the completion; `cost` is at the price
    that counted, `charged` is what the organization paid of it."""

    requests = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    cost = Money(source="cost_nanos")
    charged = Money(source="charged_nanos")


class BucketAnswer(serializers.Serializer[Any]):
    start = Moment()
    sums = SumsAnswer()


class GroupAnswer(serializers.Serializer[Any]):
    """One model or one key: the other is null."""

    model = LabelledModel(allow_null=True)
    key = LabelledKey(allow_null=True)
    sums = SumsAnswer()


class UsageAnswer(serializers.Serializer[Any]):
    """Usage of a period. groups: dearest first, at most 200 of `group_count`."""

    bucket = serializers.ChoiceField(choices=["hour", "day", "month"])
    total = SumsAnswer()
    buckets = BucketAnswer(many=True, help_text="Every one of the period, also those without usage.")
    groups = GroupAnswer(many=True)
    group_count = serializers.IntegerField()

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": Moment(), "to": Moment(), **super().get_fields()}


class RequestListParameters(Page):
    model = _Slugs(**MODEL_FILTER)
    key = _Keys(**KEY_FILTER)
    hold_state = OneOf(choices=HoldState.values, required=False)
    outcome = OneOf(choices=AttemptOutcome.values, required=False, help_text="Of the last attempt.")
    billed = OneOf(choices=["true"], required=False, help_text="Only calls that were charged something.")

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": from_field(), "to": to_field(), **super().get_fields()}


class RequestAnswer(serializers.Serializer[Any]):
    """One call. What it used and cost is null until it is known; times are of its last attempt."""

    id = PublicId(kind="request")
    admitted_at = Moment()
    model = LabelledModel()
    key = LabelledKey()
    endpoint = serializers.CharField()
    is_stream = serializers.BooleanField()
    hold_state = serializers.ChoiceField(choices=HoldState.choices)
    held = Money(source="hold_nanos")
    prompt_tokens = serializers.IntegerField(allow_null=True)
    cached_tokens = serializers.IntegerField(allow_null=True)
    completion_tokens = serializers.IntegerField(allow_null=True)
    reasoning_tokens = serializers.IntegerField(allow_null=True)
    cost = Money(source="cost_nanos", allow_null=True)
    charged = Money(source="charged_nanos", allow_null=True)
    basis = serializers.ChoiceField(choices=Basis.choices, allow_null=True)
    provenance = serializers.ChoiceField(
        choices=list(Sureness), allow_null=True, help_text="How sure the counts are."
    )
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=UsageSource.choices, allow_null=True
    )
    revision = serializers.IntegerField(allow_null=True)
    outcome = serializers.ChoiceField(choices=AttemptOutcome.choices, allow_null=True)
    http_status = serializers.IntegerField(allow_null=True)
    ttft_ms = serializers.IntegerField(allow_null=True, help_text="Milliseconds to the first token.")
    duration_ms = serializers.IntegerField(allow_null=True)


RequestPageAnswer = page_of(RequestAnswer, "RequestPageAnswer")


class UsageEndpoint(TenantEndpoint):
    @operation(
        id="getUsage",
        summary="Add usage up",
        tag="usage",
        action="usage.read",
        scope=ManagementScope.USAGE_READ,
        permission=Permission.SEE_USAGE,
        parameters=UsageParameters,
        answer=UsageAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """Sums of a period: over time, and by model or key. From the hourly rollups, so an hour counts where
        it begins; at most 768 hours, 400 days or 60 months."""
        given = call.parameters
        from_at, to_at = period_of(given, now=call.now)
        try:
            totals = usage_totals(
                tenant_id=call.tenant_id,
                from_at=from_at,
                to_at=to_at,
                bucket=given["bucket"],
                group_by="api_key" if given["group_by"] == "key" else "model",
                models=given.get("model", ()),
                api_keys=given.get("key", ()),
            )
        except InvalidPeriod as error:
            raise bad_period(f"{error}.") from None
        by_bucket = [
            sum((series.buckets[index] for series in totals.series), Sums())
            for index in range(len(totals.starts))
        ]
        found = {
            "from": from_at,
            "to": to_at,
            "bucket": totals.bucket,
            "total": totals.total,
            "buckets": [
                {"start": start, "sums": sums} for start, sums in zip(totals.starts, by_bucket, strict=True)
            ],
            "groups": [
                {"model": group.model, "key": group.key, "sums": sums} for group, sums in totals.groups
            ],
            "group_count": totals.group_count,
        }
        return Answer(UsageAnswer(found, context=call.money).data)


class RequestList(TenantEndpoint):
    @operation(
        id="listRequests",
        summary="List calls",
        tag="usage",
        action="request.list",
        scope=ManagementScope.USAGE_READ,
        permission=Permission.SEE_USAGE,
        parameters=RequestListParameters,
        answer=RequestPageAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """Calls of a period of at most 400 days, newest first."""
        listing = call.listing
        place: tuple[datetime, datetime, UUID] | None = None
        if listing.place is not None:
            # The end of a period that ends now must not move between its pages.
            first, last, before = listing.place
            place = (moment(first), moment(last), identifier(before))
        from_at, to_at = (place[0], place[1]) if place else period_of(listing.filters, now=call.now)
        try:
            page = list_requests(
                tenant_id=call.tenant_id,
                filters=_request_filter(listing.filters, from_at, to_at),
                before=place[2] if place else None,
                limit=listing.limit,
            )
        except InvalidRequestFilter as error:
            raise bad_period(f"{error}.") from None
        following = listing.cursor(from_at, to_at, page.next) if page.next else None
        rows = [RequestAnswer(row, context=call.money).data for row in page.rows]
        return Answer(page_json(rows, following))


class RequestDetail(TenantEndpoint):
    @operation(
        id="getRequest",
        summary="Read a call's receipt",
        tag="usage",
        action="request.read",
        scope=ManagementScope.USAGE_READ,
        permission=Permission.SEE_USAGE,
        parts={"request_id": "request"},
        answer=ReceiptAnswer,
    )
    def get(self, call: TenantCall, request_id: str) -> Answer:
        """Everything that explains one charge: tokens × price, the attempts, and who witnessed it."""
        try:
            found = request_receipt(tenant_id=call.tenant_id, request_id=parse_id("request", request_id))
        except RequestNotFound:
            raise Http404 from None
        return Answer(ReceiptAnswer(found, context=call.money).data)


def _request_filter(filters: Mapping[str, Any], from_at: datetime, to_at: datetime) -> RequestFilter:
    return RequestFilter(
        from_at,
        to_at,
        model_slugs=tuple(filters.get("model", ())),
        key_ids=tuple(identifier(key) for key in filters.get("key", ())),
        hold_states=(filters["hold_state"],) if "hold_state" in filters else (),
        outcomes=(filters["outcome"],) if "outcome" in filters else (),
        is_billed="billed" in filters,
    )
