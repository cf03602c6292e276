"""Organizations, as operators see them, and what is done to them. Each change needs a reason."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404
from rest_framework import serializers

from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint, shown_id
from portal.api.fields import Moment, Money, OneOf, Page, PublicId, Strict, Text, Truth, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, page_json
from portal.pages.access import parse_id
from quotas.customers import CustomerRow, search_customers
from tenants import operations
from tenants.models import ManagementScope, TenantState
from tenants.operations import audit

TAG: Final = "operators: tenants"
PARTS: Final = {"organization": "organization"}


def reason_field(help_text: str) -> Text:
    return Text(min_length=3, max_length=audit.MAX_REASON_LENGTH, help_text=help_text)


class CustomerParameters(Page):
    search = Text(
        required=False,
        max_length=200,
        help_text="Part of the name, the beginning of a member's address, or an id of it, a key or a call.",
    )
    state = OneOf(choices=TenantState.values, required=False)


class TierName(serializers.Serializer[Any]):
    id = PublicId(kind="tier")
    code = serializers.CharField()
    name = serializers.CharField()


class CustomerAnswer(serializers.Serializer[Any]):
    """An organization with its money. `spent` is what its calls were charged lately."""

    id = PublicId(kind="organization")
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=TenantState.choices)
    state_reason = serializers.CharField(allow_blank=True)
    cuts_calls = serializers.BooleanField(help_text="While suspended: calls under way are cut.")
    currency = serializers.CharField()
    created_at = Moment()
    members = serializers.IntegerField()
    owner_email = serializers.CharField(allow_blank=True)
    tier = TierName(allow_null=True)
    balance = Money()
    paid = Money()
    granted = Money()
    owed = Money()
    credit_line = Money()
    spent = Money()


CustomerPageAnswer = page_of(CustomerAnswer, "CustomerPageAnswer")


class SuspensionBody(Strict):
    reason = reason_field("Its members read it.")
    cuts_calls = Truth(
        default=False, required=False, help_text="true: calls under way are cut, not finished."
    )


class ReasonBody(Strict):
    reason = reason_field("The audit log keeps it.")


_RAISES: Final = {
    operations.OrganizationNotFound: problems.NOT_FOUND,
    operations.OrganizationClosed: problems.CONFLICT,
    operations.AlreadySuspended: problems.CONFLICT,
    operations.NotSuspended: problems.CONFLICT,
    audit.ReasonMissing: problems.REFUSED,
}


class CustomerList(OperatorEndpoint):
    @operation(
        id="listTenants",
        summary="Search organizations",
        tag=TAG,
        action="tenant.list",
        scope=ManagementScope.TENANTS_READ,
        parameters=CustomerParameters,
        answer=CustomerPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Organizations, newest first, with what they have and spend."""
        listing = call.listing
        state = listing.filters.get("state")
        page = search_customers(
            now=call.now,
            text=listing.filters.get("search", ""),
            state=TenantState(state) if state else None,
            before=identifier(listing.place[0]) if listing.place else None,
            limit=listing.limit,
        )
        following = listing.cursor(page.next) if page.next else None
        return Answer(page_json([_shown(row) for row in page.rows], following))


class CustomerDetail(OperatorEndpoint):
    @operation(
        id="getTenant",
        summary="Read an organization",
        tag=TAG,
        action="tenant.read",
        scope=ManagementScope.TENANTS_READ,
        parts=PARTS,
        answer=CustomerAnswer,
    )
    def get(self, call: Call, organization: str) -> Answer:
        """One organization, with what it has and spends."""
        return Answer(shown_customer(call, parse_id("organization", organization)))


class Suspension(OperatorEndpoint):
    @operation(
        id="suspendTenant",
        summary="Suspend an organization",
        tag=TAG,
        action="tenant.suspend",
        scope=ManagementScope.TENANTS_WRITE,
        parts=PARTS,
        body=SuspensionBody,
        answer=CustomerAnswer,
        raises=_RAISES,
        body_example={"reason": "Unpaid invoice 2026-1103", "cuts_calls": False},
    )
    def post(self, call: Call, organization: str) -> Answer:
        """New calls of the organization are refused at once, everywhere; its members are told by mail."""
        tenant_id = parse_id("organization", organization)
        operations.suspend_tenant(
            tenant_id=tenant_id,
            reason=call.body["reason"],
            cuts_calls=call.body["cuts_calls"],
            actor=call.actor,
            now=call.now,
        )
        return Answer(shown_customer(call, tenant_id))


class Resumption(OperatorEndpoint):
    @operation(
        id="resumeTenant",
        summary="Resume an organization",
        tag=TAG,
        action="tenant.resume",
        scope=ManagementScope.TENANTS_WRITE,
        parts=PARTS,
        body=ReasonBody,
        answer=CustomerAnswer,
        raises=_RAISES,
        body_example={"reason": "Invoice 2026-1103 is paid"},
    )
    def post(self, call: Call, organization: str) -> Answer:
        """Calls of a suspended organization are admitted again."""
        tenant_id = parse_id("organization", organization)
        operations.resume_tenant(
            tenant_id=tenant_id, reason=call.body["reason"], actor=call.actor, now=call.now
        )
        return Answer(shown_customer(call, tenant_id))


def shown_customer(call: Call, tenant_id: UUID) -> Any:
    """Raises Http404."""
    page = search_customers(now=call.now, text=shown_id("organization", tenant_id), limit=1)
    if not page.rows or page.rows[0].tenant.id != tenant_id:
        raise Http404
    return _shown(page.rows[0])


def _shown(row: CustomerRow) -> Any:
    tenant = row.tenant
    content = {
        "id": tenant.id,
        "name": tenant.name,
        "state": tenant.state,
        "state_reason": tenant.state_reason,
        "cuts_calls": tenant.cuts_calls,
        "currency": tenant.currency,
        "created_at": tenant.created_at,
        "members": tenant.members,
        "owner_email": tenant.owner_email,
        "tier": row.tier,
        "balance": row.balance_nanos,
        "paid": row.paid_nanos,
        "granted": row.granted_nanos,
        "owed": row.owed_nanos,
        "credit_line": row.overdraft_nanos,
        "spent": row.spent_nanos,
    }
    return CustomerAnswer(content, context={"currency": tenant.currency}).data
