"""What there is, and every transaction that led to it."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers

from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Moment, Money, OneOf, Page, PublicId, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, moment, page_json
from portal.api.periods import from_field, period_of, to_field
from quotas.ledger.lots import expiring_credit
from quotas.ledger.queries import StatementCursor, statement_page, wallet_balance
from quotas.models import TransferKind
from tenants.models import ManagementScope
from tenants.permissions import Permission


class ExpiringAnswer(serializers.Serializer[Any]):
    amount = Money(source="amount_nanos")
    expires_at = Moment()


class BalanceAnswer(serializers.Serializer[Any]):
    """total = paid + granted − owed; available = paid + granted + overdraft − pending is what a new call may
    hold at most."""

    currency = serializers.CharField()
    total = Money(source="total_nanos")
    available = Money(source="available_nanos")
    paid = Money(source="paid_nanos")
    granted = Money(source="granted_nanos")
    owed = Money(source="owed_nanos")
    pending = Money(source="pending_nanos", help_text="Held by calls under way.")
    overdraft = Money(source="overdraft_nanos", help_text="The approved credit line.")
    expiring = ExpiringAnswer(many=True, help_text="What of the granted credit expires, first things first.")


_BALANCE: Final = (
    "currency",
    "total_nanos",
    "available_nanos",
    "paid_nanos",
    "granted_nanos",
    "owed_nanos",
    "pending_nanos",
    "overdraft_nanos",
)


class TransactionParameters(Page):
    kind = OneOf(choices=TransferKind.values, required=False)

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": from_field(), "to": to_field(), **super().get_fields()}


class TransactionAnswer(serializers.Serializer[Any]):
    """One transfer: what it did to the balance, and the balance behind it."""

    id = PublicId(kind="transfer", source="transfer_id")
    kind = serializers.ChoiceField(choices=TransferKind.choices)
    posted_at = Moment()
    request_id = PublicId(kind="request", allow_null=True, help_text="Of usage.")
    model = serializers.CharField(source="model_slug", allow_null=True, help_text="Of usage.")
    reason = serializers.CharField(allow_blank=True)
    amount = Money(source="amount_nanos")
    balance = Money(source="balance_nanos")


TransactionPage = page_of(TransactionAnswer, "TransactionPage")


class BalanceEndpoint(TenantEndpoint):
    @operation(
        id="getBalance",
        summary="Read the balance",
        tag="money",
        action="balance.read",
        scope=ManagementScope.BALANCE_READ,
        permission=Permission.SEE_OVERVIEW,
        answer=BalanceAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """What there is at this moment."""
        wallet = wallet_balance(tenant_id=call.tenant_id)
        shown = {
            **{name: getattr(wallet, name) for name in _BALANCE},
            "expiring": expiring_credit(tenant_id=call.tenant_id),
        }
        return Answer(BalanceAnswer(shown, context=call.money).data)


class TransactionList(TenantEndpoint):
    @operation(
        id="listTransactions",
        summary="List transactions",
        tag="money",
        action="transaction.list",
        scope=ManagementScope.BALANCE_READ,
        permission=Permission.SEE_BILLING,
        parameters=TransactionParameters,
        answer=TransactionPage,
    )
    def get(self, call: TenantCall) -> Answer:
        """The statement of account: every transfer of a period, oldest first, with the balance behind it."""
        listing = call.listing
        after = None
        if listing.place is not None:
            first, last, posted_at, transfer_id, balance_nanos = listing.place
            from_at, to_at = moment(first), moment(last)
            after = StatementCursor(moment(posted_at), identifier(transfer_id), int(balance_nanos))
        else:
            from_at, to_at = period_of(listing.filters, now=call.now)
        kind = listing.filters.get("kind")
        page = statement_page(
            tenant_id=call.tenant_id,
            from_at=from_at,
            to_at=to_at,
            kinds=(kind,) if kind else (),
            after=after,
            limit=listing.limit,
        )
        following = None
        if page.next is not None:
            place = page.next
            following = listing.cursor(
                from_at, to_at, place.posted_at, place.transfer_id, str(place.balance_nanos)
            )
        rows = [TransactionAnswer(row, context=call.money).data for row in page.rows]
        return Answer(page_json(rows, following))
