"""What bounds an organization's calls, and its own limits and budgets within that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from rest_framework import serializers

from models_catalog import operations as catalog_operations
from models_catalog import queries as catalog_queries
from portal.api import problems
from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Amount, Moment, Money, OneOf, PublicId, Strict, Text, Truth, Whole
from portal.api.operations import operation
from portal.api.problems import INVALID, FieldError, Problem
from portal.pages.access import parse_id
from quotas.limits import operations
from quotas.limits.queries import EffectiveLimits, LimitLine, effective_limits
from quotas.limits.values import LimitSource, SetValue
from quotas.models import LimitKind, LimitOrigin
from quotas.models.limits import BUDGET_KINDS, MAX_LIMIT
from tenants.models import ManagementScope
from tenants.permissions import Permission


class QuantityAnswer(serializers.Serializer[Any]):
    """How much: `money` of budgets, `count` (requests, tokens, calls) of the rest; the other is null."""

    count = serializers.IntegerField(allow_null=True)
    money = Money(allow_null=True)


class SetValueAnswer(serializers.Serializer[Any]):
    """A value that somebody set. id: of operators' and own limits."""

    id = PublicId(kind="limit", allow_null=True)
    value = QuantityAnswer()
    is_hard = serializers.BooleanField(help_text="false: a budget that only alerts.")
    alert_percents = serializers.ListField(child=serializers.IntegerField())
    starts_at = Moment(allow_null=True)
    ends_at = Moment(allow_null=True)


class LimitLineAnswer(serializers.Serializer[Any]):
    """One limit: the value that counts, whose it is, and the values beside it. Without model and key it is
    the whole organization's. used, pending and resets_at are null for rates."""

    kind = serializers.ChoiceField(choices=LimitKind.choices)
    model = serializers.CharField(allow_null=True, help_text="Slug.")
    key = PublicId(kind="api_key", allow_null=True)
    value = QuantityAnswer()
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=[source.value for source in LimitSource]
    )
    is_hard = serializers.BooleanField()
    alert_percents = serializers.ListField(child=serializers.IntegerField())
    used = QuantityAnswer(allow_null=True)
    pending = QuantityAnswer(allow_null=True)
    resets_at = Moment(allow_null=True)
    tier_value = SetValueAnswer(allow_null=True)
    operator_value = SetValueAnswer(allow_null=True)
    own_value = SetValueAnswer(allow_null=True)


class TierAnswer(serializers.Serializer[Any]):
    code = serializers.CharField()
    name = serializers.CharField()
    since = Moment(allow_null=True)
    ends_at = Moment(allow_null=True)


class NextTierAnswer(serializers.Serializer[Any]):
    """The tier above, from what was paid in a lifetime on."""

    code = serializers.CharField()
    name = serializers.CharField()
    lifetime_paid = Money(source="lifetime_paid_nanos")
    missing = Money(source="missing_nanos")


class LimitsAnswer(serializers.Serializer[Any]):
    """Everything that applies now. A call has to fit all of it."""

    tier = TierAnswer(allow_null=True)
    next_tier = NextTierAnswer(allow_null=True)
    lifetime_paid = Money()
    limits = LimitLineAnswer(many=True)


class LimitBody(Strict):
    kind = OneOf(choices=LimitKind.values)
    count = Whole(
        required=False,
        min_value=0,
        max_value=MAX_LIMIT,
        help_text="Of everything but budgets: requests, tokens or calls; 0 stops every call.",
    )
    amount = Amount(required=False, help_text='Of budgets, in the wallet\'s currency, such as "25.00".')
    model = Text(required=False, max_length=120, help_text="Only calls of this model, by slug.")
    key = PublicId(kind="api_key", required=False, help_text="Only calls with this key.")
    is_hard = Truth(
        required=False, default=True, help_text="false: a budget that alerts and refuses nothing."
    )
    alert_percents = serializers.ListField(
        child=Whole(min_value=1, max_value=100),
        required=False,
        max_length=operations.MAX_ALERTS,
        help_text="Of budgets: mails go out when so much of it is used; ascending.",
    )
    ends_at = Moment(required=False, help_text="Left out: until it is cleared.")


_RAISES: Final = {
    operations.InvalidLimit: problems.REFUSED,
    operations.AboveCeiling: problems.REFUSED,
    operations.UnknownModel: problems.REFUSED,
    operations.UnknownKey: problems.REFUSED,
    operations.TooManyLimits: problems.LIMIT_REACHED,
    catalog_operations.ModelNotFound: problems.REFUSED,
}


class LimitList(TenantEndpoint):
    @operation(
        id="getLimits",
        summary="Read the effective limits",
        tag="limits",
        action="limit.read",
        scope=ManagementScope.LIMITS_READ,
        permission=Permission.SEE_LIMITS,
        answer=LimitsAnswer,
    )
    def get(self, call: TenantCall) -> Answer:
        """Rates, quotas and budgets: what counts, what is used of it, and when it begins anew."""
        return Answer(_shown(call, _effective(call)))

    @operation(
        id="setLimit",
        summary="Set an own limit",
        tag="limits",
        action="limit.set",
        scope=ManagementScope.LIMITS_WRITE,
        permission=Permission.MANAGE_LIMITS,
        body=LimitBody,
        answer=LimitLineAnswer,
        raises=_RAISES,
        body_example={"kind": "MONEY_MONTH", "amount": "250.00", "alert_percents": [50, 80, 100]},
    )
    def post(self, call: TenantCall) -> Answer:
        """The organization limits itself: one value for each kind, model and key, in place of the one before.
        It cannot allow more than the operators, or the tier, do."""
        body = call.body
        limit_id = operations.set_limit(
            tenant_id=call.tenant_id,
            kind=LimitKind(body["kind"]),
            value=_value(body),
            origin=LimitOrigin.TENANT,
            actor=call.actor,
            now=call.now,
            model_id=_model_id(call, body["model"]) if "model" in body else None,
            api_key_id=body.get("key"),
            is_hard=body["is_hard"],
            alert_percents=body.get("alert_percents", ()),
            ends_at=body.get("ends_at"),
            default_rpm=_default_rpm(),
        )
        lines = _effective(call).own
        line = next(line for line in lines if line.of_tenant and line.of_tenant.limit_id == limit_id)
        return Answer(_shown_line(call, line))


class LimitDetail(TenantEndpoint):
    @operation(
        id="clearLimit",
        summary="Clear an own limit",
        tag="limits",
        action="limit.clear",
        scope=ManagementScope.LIMITS_WRITE,
        permission=Permission.MANAGE_LIMITS,
        parts={"limit": "limit"},
        answer=LimitsAnswer,
        raises={operations.LimitNotFound: problems.NOT_FOUND},
    )
    def delete(self, call: TenantCall, limit: str) -> Answer:
        """End a limit that the organization has set; the answer is what applies then."""
        operations.clear_limit(
            tenant_id=call.tenant_id, limit_id=parse_id("limit", limit), actor=call.actor, now=call.now
        )
        return Answer(_shown(call, _effective(call)))


def _effective(call: TenantCall) -> EffectiveLimits:
    return effective_limits(tenant_id=call.tenant_id, now=call.now, default_rpm=_default_rpm())


def _default_rpm() -> int:
    limit_rpm: int = settings.TUNING["SLUICE_RATE_LIMIT_RPM"]
    return limit_rpm


def _model_id(call: TenantCall, slug: str) -> Any:
    """Errors: ModelNotFound."""
    page = catalog_queries.model_page(
        slug=slug, currency=call.organization.currency, now=call.now, tenant_id=call.tenant_id
    )
    return page.model.id


def _value(body: Mapping[str, Any]) -> int:
    """Count or nano-units, whichever the kind has. Errors: Problem 400."""
    wanted, other = ("amount", "count") if body["kind"] in BUDGET_KINDS else ("count", "amount")
    if wanted not in body or other in body:
        detail = f"A limit of {body['kind']} has {wanted}, and no {other}."
        raise Problem(INVALID, detail, errors=(FieldError("body", wanted, "required", detail),))
    value: int = body[wanted]
    return value


def _shown(call: TenantCall, found: EffectiveLimits) -> Any:
    content = {
        "tier": found.tier,
        "next_tier": found.next_tier,
        "lifetime_paid": found.paid_nanos,
        "limits": [_line(line) for line in found.lines],
    }
    return LimitsAnswer(content, context=call.money).data


def _shown_line(call: TenantCall, line: LimitLine) -> Any:
    return LimitLineAnswer(_line(line), context=call.money).data


def _line(line: LimitLine) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "model": line.scope.model_slug or None,
        "key": line.scope.api_key_id,
        "value": _quantity(line.kind, line.value),
        "source": line.source,
        "is_hard": line.is_hard,
        "alert_percents": list(line.alert_percents),
        "used": None if line.used is None else _quantity(line.kind, line.used),
        "pending": None if line.pending is None else _quantity(line.kind, line.pending),
        "resets_at": line.resets_at,
        "tier_value": _set_value(line.kind, line.of_tier),
        "operator_value": _set_value(line.kind, line.of_operator),
        "own_value": _set_value(line.kind, line.of_tenant),
    }


def _set_value(kind: LimitKind, value: SetValue | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "id": value.limit_id,
        "value": _quantity(kind, value.value),
        "is_hard": value.is_hard,
        "alert_percents": list(value.alert_percents),
        "starts_at": value.starts_at,
        "ends_at": value.ends_at,
    }


def _quantity(kind: LimitKind, value: int) -> dict[str, int | None]:
    is_money = kind in BUDGET_KINDS
    return {"count": None if is_money else value, "money": value if is_money else None}
