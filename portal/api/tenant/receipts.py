"""What a receipt is made of, in answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from models_catalog.models import CancelPolicy
from portal.api.fields import Moment, Money, PublicId, money_json
from quotas.metering.queries import Sureness
from quotas.models import AttemptOutcome, Basis, CorrectionCause, HoldState, Provenance, UsageSource


class LabelledModel(serializers.Serializer[Any]):
    id = PublicId(kind="model")
    slug = serializers.CharField()
    name = serializers.CharField()


class LabelledKey(serializers.Serializer[Any]):
    """A key as it is recognised; the playground's keys have no name of their own."""

    id = PublicId(kind="api_key")
    name = serializers.CharField()
    hint = serializers.CharField(allow_blank=True, help_text="The last characters of the token.")
    is_playground = serializers.BooleanField()


class ChargedLineAnswer(serializers.Serializer[Any]):
    """units × price_per_million = amount, rounded half up, once. line_class: of the line that was used.
    is_billed: false for what the cancel policy waives."""

    token_class = serializers.CharField()
    units = serializers.IntegerField()
    price_per_million = Money(source="price_nanos_per_million")
    amount = Money(source="amount_nanos")
    line_class = serializers.CharField()
    window = serializers.CharField(allow_null=True)
    input_from_tokens = serializers.IntegerField()
    input_to_tokens = serializers.IntegerField(allow_null=True)
    is_billed = serializers.BooleanField()


class MovedAmount(serializers.Serializer[Any]):
    account = serializers.ChoiceField(choices=["TOPPED_UP", "GRANTED", "RECEIVABLE"])
    amount = Money()


class PostedTransferAnswer(serializers.Serializer[Any]):
    """What a revision moved on the organization's accounts."""

    id = PublicId(kind="transfer")
    posted_at = Moment()
    amounts = serializers.SerializerMethodField()

    def get_amounts(self, transfer: Any) -> list[dict[str, Any]]:
        currency = self.context["currency"]
        return [
            {"account": account, "amount": money_json(amount_nanos, currency)}
            for account, amount_nanos in transfer.amounts
        ]

    get_amounts._spectacular_annotation = {"field": MovedAmount(many=True)}  # type: ignore[attr-defined]


class RevisionAnswer(serializers.Serializer[Any]):
    """What was known at one time: cost = charged + overrun + waived (both of which the house bears)."""

    revision = serializers.IntegerField()
    recorded_at = Moment()
    source = serializers.ChoiceField(choices=UsageSource.choices)  # type: ignore[assignment]
    basis = serializers.ChoiceField(choices=Basis.choices)
    provenance = serializers.ChoiceField(choices=Provenance.choices, help_text="Of this revision.")
    cause = serializers.ChoiceField(
        choices=CorrectionCause.choices, allow_null=True, help_text="Why it was corrected."
    )
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    image_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    billed = serializers.ChoiceField(choices=CancelPolicy.choices)
    cost = Money(source="cost_nanos")
    charged = Money(source="charged_nanos")
    paid = Money(source="paid_nanos")
    granted = Money(source="granted_nanos")
    receivable = Money(source="receivable_nanos")
    overrun = Money(source="overrun_nanos")
    waived = Money(source="waived_nanos")
    lines = ChargedLineAnswer(many=True)
    transfer = PostedTransferAnswer(allow_null=True)


class PriceUsedAnswer(serializers.Serializer[Any]):
    """The version that counted when the call was admitted."""

    id = PublicId(kind="price")
    currency = serializers.CharField()
    time_zone = serializers.CharField()
    active_from = Moment()
    active_to = Moment(allow_null=True)
    is_private = serializers.BooleanField()
    service_tier = serializers.CharField()
    window = serializers.CharField(allow_null=True)


class HeldMoneyAnswer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=HoldState.choices)
    amount = Money(source="amount_nanos")
    lease_until = Moment()
    resolved_at = Moment(allow_null=True)
    resolved_by = serializers.CharField(allow_blank=True)


class AttemptAnswer(serializers.Serializer[Any]):
    """One try. `backend` counts the different places that were tried, from 1."""

    id = PublicId(kind="attempt")
    choice_index = serializers.IntegerField()
    ordinal = serializers.IntegerField()
    backend = serializers.IntegerField()
    offset_ms = serializers.IntegerField(help_text="Milliseconds from the admission to its beginning.")
    duration_ms = serializers.IntegerField(allow_null=True)
    ttft_ms = serializers.IntegerField(allow_null=True)
    outcome = serializers.ChoiceField(choices=AttemptOutcome.choices, allow_null=True)
    http_status = serializers.IntegerField(allow_null=True)
    prompt_tokens = serializers.IntegerField(allow_null=True)
    completion_tokens = serializers.IntegerField(allow_null=True)


class ReceiptAnswer(serializers.Serializer[Any]):
    """One call. revisions: oldest first; the last is the truth."""

    id = PublicId(kind="request")
    admitted_at = Moment()
    model = LabelledModel()
    key = LabelledKey()
    endpoint = serializers.CharField()
    is_stream = serializers.BooleanField()
    choices = serializers.IntegerField()
    prompt_bound_tokens = serializers.IntegerField()
    output_cap_tokens = serializers.IntegerField()
    max_cost = Money(source="max_cost_nanos", allow_null=True, help_text="The caller's ceiling.")
    cancel_policy = serializers.ChoiceField(
        choices=CancelPolicy.choices, help_text="What is billed of a call that breaks off."
    )
    has_broken_off = serializers.BooleanField()
    provenance = serializers.ChoiceField(
        choices=list(Sureness), allow_null=True, help_text="How sure the newest counts are."
    )
    price = PriceUsedAnswer()
    hold = HeldMoneyAnswer()
    revisions = RevisionAnswer(many=True)
    attempts = AttemptAnswer(many=True)
    witnesses = serializers.ListField(
        child=serializers.ChoiceField(choices=UsageSource.choices),
        help_text="Who reported it, in order.",
    )
