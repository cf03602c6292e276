"""Credit orders: given, taken back, lines of credit; above a limit a second operator decides."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.http import Http404
from rest_framework import serializers

from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Amount, Moment, Money, OneOf, Page, PublicId, Strict, page_of
from portal.api.operations import operation
from portal.api.operators.tenants import ReasonBody, reason_field
from portal.api.paging import identifier, page_json
from portal.pages.access import parse_id
from quotas.credit import operations
from quotas.credit.policy import CreditPolicy
from quotas.credit.queries import CreditOrderRow, find_order, list_orders
from quotas.models import CreditOrderKind, CreditOrderState
from tenants.models import ManagementScope
from tenants.operations import audit

TAG: Final = "operators: tenants"
PARTS: Final = {"order": "credit_order"}


class OrderParameters(Page):
    organization = PublicId(kind="organization", required=False, help_text="Only those of one organization.")
    state = OneOf(choices=["waiting", "decided"], required=False)


class OrderAnswer(serializers.Serializer[Any]):
    """An order. `alone` is how much of it one operator could order without a second one."""

    id = PublicId(kind="credit_order")
    organization = PublicId(kind="organization", source="tenant_id")
    organization_name = serializers.CharField(source="organization")
    kind = serializers.ChoiceField(choices=CreditOrderKind.choices)
    amount = Money(source="amount_nanos")
    alone = Money(source="limit_nanos")
    reason = serializers.CharField()
    state = serializers.ChoiceField(choices=CreditOrderState.choices)
    ordered_by = serializers.CharField(source="ordered_by_email", allow_blank=True)
    ordered_at = Moment()
    decided_by = serializers.CharField(source="decided_by_email", allow_blank=True)
    decided_at = Moment(allow_null=True)
    decision_reason = serializers.CharField(allow_blank=True)
    transaction_id = PublicId(kind="transfer", source="transfer_id", allow_null=True)
    expires_at = Moment(allow_null=True, help_text="When what is left of it goes; null for never.")


OrderPageAnswer = page_of(OrderAnswer, "OrderPageAnswer")


class OrderBody(Strict):
    organization = PublicId(kind="organization")
    kind = OneOf(choices=CreditOrderKind.values)
    amount = Amount(help_text="In the organization's currency; of CREDIT_LINE: the new line.")
    expires_at = Moment(
        required=False,
        allow_null=True,
        help_text="Of GRANT and GOODWILL: when what is left of it goes; without it, never.",
    )
    reason = reason_field("It stays between operators; the audit log keeps it.")


_RAISES: Final = {
    operations.OrderNotFound: problems.NOT_FOUND,
    operations.NoWallet: problems.REFUSED,
    operations.InvalidOrder: problems.REFUSED,
    operations.TakesTooMuch: problems.REFUSED,
    operations.CreditLineInUse: problems.REFUSED,
    operations.OrderDecided: problems.CONFLICT,
    operations.OwnOrder: problems.FORBIDDEN,
    operations.NotYourOrder: problems.FORBIDDEN,
    audit.ReasonMissing: problems.REFUSED,
}


class OrderList(OperatorEndpoint):
    @operation(
        id="listCreditOrders",
        summary="List credit orders",
        tag=TAG,
        action="credit.list",
        scope=ManagementScope.TENANTS_READ,
        parameters=OrderParameters,
        answer=OrderPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Orders, newest first."""
        listing = call.listing
        state = listing.filters.get("state")
        organization = listing.filters.get("organization")
        page = list_orders(
            tenant_id=identifier(organization) if organization else None,
            is_decided=None if state is None else state == "decided",
            before=identifier(listing.place[0]) if listing.place else None,
            limit=listing.limit,
        )
        following = listing.cursor(page.next) if page.next else None
        return Answer(page_json([_shown(row) for row in page.rows], following))

    @operation(
        id="orderCredit",
        summary="Order credit",
        tag=TAG,
        action="credit.order",
        scope=ManagementScope.CREDIT_WRITE,
        body=OrderBody,
        answer=OrderAnswer,
        status=201,
        raises=_RAISES,
        body_example={
            "organization": "org_01k9zq5v3nf2t8x4m6r7w0y1ab",
            "kind": "GRANT",
            "amount": "25.00",
            "reason": "Credit of the pilot, as agreed",
        },
    )
    def post(self, call: Call) -> Answer:
        """Give credit, take it back, or set a line of credit. Up to the installation's limit it is posted at
        once; above it waits for a second operator, and the answer says so in `state`."""
        order = operations.order_credit(
            tenant_id=call.body["organization"],
            kind=CreditOrderKind(call.body["kind"]),
            amount_nanos=call.body["amount"],
            reason=call.body["reason"],
            actor=call.actor,
            policy=CreditPolicy.of_units(
                limit_units=settings.TUNING["SLUICE_CREDIT_LIMIT_UNITS"],
                line_limit_units=settings.TUNING["SLUICE_CREDIT_LINE_LIMIT_UNITS"],
            ),
            now=call.now,
            expires_at=call.body.get("expires_at"),
        )
        return Answer(_shown(order), status=201)


class OrderDetail(OperatorEndpoint):
    @operation(
        id="getCreditOrder",
        summary="Read a credit order",
        tag=TAG,
        action="credit.read",
        scope=ManagementScope.TENANTS_READ,
        parts=PARTS,
        answer=OrderAnswer,
    )
    def get(self, call: Call, order: str) -> Answer:
        """One order, whatever its state."""
        found = find_order(order_id=parse_id("credit_order", order))
        if found is None:
            raise Http404
        return Answer(_shown(found))


class OrderApproval(OperatorEndpoint):
    @operation(
        id="approveCreditOrder",
        summary="Approve a credit order",
        tag=TAG,
        action="credit.approve",
        scope=ManagementScope.CREDIT_WRITE,
        parts=PARTS,
        body=ReasonBody,
        answer=OrderAnswer,
        raises=_RAISES,
        body_example={"reason": "Checked against the contract"},
    )
    def post(self, call: Call, order: str) -> Answer:
        """A second operator approves, and it is posted. Nobody approves what they have ordered themselves,
        nor does a key in their name."""
        return Answer(
            _shown(
                operations.approve_order(
                    order_id=parse_id("credit_order", order),
                    actor=call.actor,
                    now=call.now,
                    reason=call.body["reason"],
                )
            )
        )


class OrderRefusal(OperatorEndpoint):
    @operation(
        id="refuseCreditOrder",
        summary="Refuse a credit order",
        tag=TAG,
        action="credit.refuse",
        scope=ManagementScope.CREDIT_WRITE,
        parts=PARTS,
        body=ReasonBody,
        answer=OrderAnswer,
        raises=_RAISES,
        body_example={"reason": "Not agreed with the customer"},
    )
    def post(self, call: Call, order: str) -> Answer:
        """A second operator refuses, and nothing is posted."""
        return Answer(
            _shown(
                operations.refuse_order(
                    order_id=parse_id("credit_order", order),
                    actor=call.actor,
                    reason=call.body["reason"],
                    now=call.now,
                )
            )
        )


def _shown(order: CreditOrderRow) -> Any:
    return OrderAnswer(order, context={"currency": order.currency}).data
