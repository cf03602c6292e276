"""Purchases of credit: what was paid, how, and what went back of it."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework import serializers

from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Moment, Money, OneOf, Page, PublicId, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, page_json
from portal.pages.access import parse_id
from quotas.models import TopUpSource, TopUpState
from quotas.payments.top_ups import find_top_up, list_top_ups
from tenants.models import ManagementScope
from tenants.permissions import Permission


class TopUpParameters(Page):
    paid = OneOf(choices=["true"], required=False, help_text="Only top-ups that brought credit.")


class TopUpAnswer(serializers.Serializer[Any]):
    """One purchase of credit. What was paid is known once it is: paid = amount + tax."""

    id = PublicId(kind="top_up")
    state = serializers.ChoiceField(choices=TopUpState.choices)
    # A serializer has an attribute of this name, which is about something else.
    source = serializers.ChoiceField(choices=TopUpSource.choices)  # type: ignore[assignment]
    amount = Money(source="amount_nanos", help_text="The credit, without tax.")
    tax = Money(source="tax_nanos", allow_null=True)
    paid = Money(source="gross_nanos", allow_null=True)
    refunded = Money(source="refunded_nanos", help_text="The credit that went back, or is on its way.")
    method = serializers.CharField(allow_blank=True, help_text="As people know it: visa ···· 4242.")
    failure_code = serializers.CharField(allow_blank=True)
    receipt_url = serializers.CharField(allow_blank=True)
    invoice_url = serializers.CharField(allow_blank=True)
    created_at = Moment()
    ended_at = Moment(allow_null=True, help_text="When it was paid, failed or expired.")


TopUpPage = page_of(TopUpAnswer, "TopUpPage")


class TopUpList(TenantEndpoint):
    @operation(
        id="listTopUps",
        summary="List top-ups",
        tag="money",
        action="top_up.list",
        scope=ManagementScope.BALANCE_READ,
        permission=Permission.SEE_BILLING,
        parameters=TopUpParameters,
        answer=TopUpPage,
    )
    def get(self, call: TenantCall) -> Answer:
        """Purchases of credit, newest first, also those that are open or came to nothing."""
        listing = call.listing
        page = list_top_ups(
            tenant_id=call.tenant_id,
            is_paid=listing.filters.get("paid") == "true",
            before=identifier(listing.place[0]) if listing.place else None,
            limit=listing.limit,
        )
        following = listing.cursor(page.next) if page.next else None
        rows = [TopUpAnswer(row, context=call.money).data for row in page.rows]
        return Answer(page_json(rows, following))


class TopUpDetail(TenantEndpoint):
    @operation(
        id="getTopUp",
        summary="Read a top-up",
        tag="money",
        action="top_up.read",
        scope=ManagementScope.BALANCE_READ,
        permission=Permission.SEE_BILLING,
        parts={"top_up": "top_up"},
        answer=TopUpAnswer,
    )
    def get(self, call: TenantCall, top_up: str) -> Answer:
        """One purchase of credit."""
        found = find_top_up(tenant_id=call.tenant_id, top_up_id=parse_id("top_up", top_up))
        if found is None:
            raise Http404
        return Answer(TopUpAnswer(found, context=call.money).data)
