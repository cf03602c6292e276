"""Revenue, cost and margin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.conf import settings
from rest_framework import serializers

from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, Money, MoneyAnswer, OneOf, Parameters, PublicId, Text, money_json
from portal.api.operations import operation
from portal.api.periods import from_field, period_of, to_field
from portal.api.problems import INVALID, FieldError, Problem
from portal.kit.ids import PREFIXES, public_id
from quotas.business.figures import BusinessLine, BusinessReport, Foreign
from quotas.business.queries import MAX_LINES, business_report
from tenants.models import ManagementScope

_KINDS: Final = {"model": "model", "tenant": "organization", "pool": "pool", "backend": "backend"}


class BusinessParameters(Parameters):
    group_by = OneOf(choices=list(_KINDS), required=False, default="model")
    currency = Text(
        required=False,
        max_length=3,
        help_text="Figures of one currency; nothing is converted. Left out: the installation's first.",
    )

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": from_field(), "to": to_field(), **super().get_fields()}


class ForeignAnswer(serializers.Serializer[Any]):
    """What cannot be compared: revenue and cost of the same calls are in two currencies. This is the side
    that is not in the report's."""

    revenue = MoneyAnswer()
    cost = MoneyAnswer()


class FiguresAnswer(serializers.Serializer[Any]):
    """What calls used, earned and cost. Revenue is what was charged and not granted; cost is without idle
    capacity."""

    requests = serializers.IntegerField()
    uncosted_requests = serializers.IntegerField(help_text="Of so many no cost is known.")
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    weighted_tokens_thousandths = serializers.IntegerField(
        source="weighted", help_text="Tokens times their weights, by which cost is shared."
    )
    revenue = Money(source="revenue_nanos")
    granted = Money(source="granted_nanos")
    overrun = Money(source="overrun_nanos")
    cost = Money(source="cost_nanos")


class LineAnswer(serializers.Serializer[Any]):
    """A model, organization, pool or backend. Its margin is before idle capacity, and null where it cannot be
    said: a cost is not known, or in another currency. id is null for all that did not fit into the report."""

    id = serializers.CharField(allow_null=True)
    name = serializers.CharField(allow_blank=True)
    figures = FiguresAnswer()
    margin = Money(allow_null=True)
    margin_ppm = serializers.IntegerField(allow_null=True, help_text="Of the revenue, in millionths.")
    reserved_cost = Money(allow_null=True, help_text="Of all that is reserved; null by organization.")
    idle = Money(allow_null=True, help_text="Cost of what is reserved and was not sold.")
    utilisation_ppm = serializers.IntegerField(allow_null=True)
    breakeven_ppm = serializers.IntegerField(
        allow_null=True, help_text="The utilisation at which what is reserved pays for itself."
    )
    goodwill = Money(allow_null=True, help_text="By organization only; no revenue.")
    fees = Money(allow_null=True, help_text="Of payments; by organization only.")
    foreign = ForeignAnswer(many=True)


class UnreservedAnswer(serializers.Serializer[Any]):
    """The part of a pool's cost that is reserved for no deployment."""

    pool = PublicId(kind="pool", source="pool_id")
    code = serializers.CharField()
    cost = Money(source="cost_nanos")


class BusinessTotals(serializers.Serializer[Any]):
    """pool_cost = cost + idle + unreserved, exactly. The margin is after idle capacity, and before goodwill
    and payment fees."""

    figures = FiguresAnswer()
    margin = Money(allow_null=True)
    margin_ppm = serializers.IntegerField(allow_null=True)
    idle = Money()
    unreserved = Money()
    pool_cost = Money()
    goodwill = Money()
    fees = Money()
    foreign = ForeignAnswer(many=True)


class BusinessAnswer(serializers.Serializer[Any]):
    """The hours that begin in the period. What earned or cost in another currency is in another report."""

    group_by = serializers.ChoiceField(choices=list(_KINDS))
    currency = serializers.CharField()
    currencies = serializers.ListField(
        child=serializers.CharField(), help_text="All in which something was earned or cost in the period."
    )
    provisional_from = Moment(allow_null=True, help_text="The first hour that is not final yet.")
    missing_hours = serializers.IntegerField(help_text="Have passed and are still to be allocated.")
    totals = BusinessTotals()
    lines = LineAnswer(
        many=True, help_text=f"Those that earned most first; {MAX_LINES}, then the rest as one."
    )
    unreserved = UnreservedAnswer(many=True)

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {"from": Moment(), "to": Moment(), **super().get_fields()}


class BusinessEndpoint(OperatorEndpoint):
    @operation(
        id="getBusiness",
        summary="Read the business report",
        tag="operators: business",
        action="business.read",
        scope=ManagementScope.BUSINESS_READ,
        parameters=BusinessParameters,
        answer=BusinessAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Tokens, revenue, cost and margin by model, organization, pool or backend, with what was idle."""
        from_at, to_at = period_of(call.parameters, now=call.now)
        currency = call.parameters.get("currency", settings.CURRENCIES[0])
        report = business_report(
            from_=from_at, to=to_at, group_by=call.parameters["group_by"], currency=currency
        )
        known = tuple(dict.fromkeys((*settings.CURRENCIES, *report.currencies)))
        if currency not in known:
            detail = f"Figures of this period are in {', '.join(known)}."
            raise Problem(INVALID, detail, errors=(FieldError("query", "currency", "currency", detail),))
        return Answer(BusinessAnswer(_content(report), context={"currency": currency}).data)


def _content(report: BusinessReport) -> dict[str, Any]:
    totals = report.totals
    return {
        "from": report.from_at,
        "to": report.to_at,
        "group_by": report.group_by,
        "currency": report.currency,
        "currencies": list(report.currencies),
        "provisional_from": report.provisional_from,
        "missing_hours": report.missing_hours,
        "totals": {
            "figures": totals.sums,
            "margin": totals.margin_nanos,
            "margin_ppm": totals.margin_ppm,
            "idle": totals.idle_nanos,
            "unreserved": totals.unreserved_nanos,
            "pool_cost": totals.pool_cost_nanos,
            "goodwill": totals.goodwill_nanos,
            "fees": totals.fees_nanos,
            "foreign": _foreign(totals.foreign),
        },
        "lines": [_line(line, _KINDS[report.group_by]) for line in report.lines],
        "unreserved": report.unreserved,
    }


def _line(line: BusinessLine, kind: str) -> dict[str, Any]:
    capacity = line.capacity
    return {
        "id": public_id(PREFIXES[kind], line.key) if line.key else None,
        "name": line.name,
        "figures": line.sums,
        "margin": line.margin_nanos,
        "margin_ppm": line.margin_ppm,
        "reserved_cost": capacity.cost_nanos if capacity else None,
        "idle": line.idle_nanos,
        "utilisation_ppm": capacity.utilisation_ppm if capacity else None,
        "breakeven_ppm": line.breakeven_ppm,
        "goodwill": line.goodwill_nanos,
        "fees": line.fees_nanos,
        "foreign": _foreign(line.foreign),
    }


def _foreign(foreign: Iterable[Foreign]) -> list[dict[str, Any]]:
    return [
        {
            "revenue": money_json(one.revenue_nanos, one.currency),
            "cost": money_json(one.cost_nanos, one.currency),
        }
        for one in foreign
    ]
