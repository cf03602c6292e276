"""Prices as operators see and write them: what the endpoints beside this take and give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from models_catalog.models import ServiceTier, TokenClass
from models_catalog.pricing.checks import Fault, InvalidTariff, WindowEntry
from models_catalog.pricing.compare import Increase
from models_catalog.pricing.content import Gap, PriceContent, PriceLineContent
from models_catalog.pricing.queries import VersionPage, VersionRow, VersionState
from models_catalog.pricing.weeks import WEEK_MINUTES
from portal.api.fields import Amount, Moment, Money, OneOf, PublicId, Strict, Text, Whole
from portal.api.problems import INVALID, FieldError, Problem
from portal.api.tenant.models import PriceLineAnswer, SpanAnswer

# What a program has got wrong, in the words of the body.
_FAULTS: Final[Mapping[Fault, str]] = {
    Fault.UNKNOWN_ZONE: "There is no such time zone.",
    Fault.TOO_MANY: "There may be {other} at most.",
    Fault.NAME_MISSING: "A window has a name.",
    Fault.NAME_NOT_TEXT: "A name is plain text without spaces around it.",
    Fault.NAME_TWICE: "Another window has this name.",
    Fault.SPANS_MISSING: "A window has at least one span.",
    Fault.SPANS_OUTSIDE_WEEK: "A span begins before it ends, within the week.",
    Fault.SPANS_OVERLAP: "It overlaps with the window {other}.",
    Fault.CLASS_UNKNOWN: "There is no such class of tokens.",
    Fault.TIER_UNKNOWN: "There is no such service tier.",
    Fault.WINDOW_UNKNOWN: "No window has this name.",
    Fault.PRICE_OUT_OF_RANGE: "The price is out of range.",
    Fault.LENGTH_OUT_OF_RANGE: "The input length is out of range.",
    Fault.LENGTHS_BACKWARD: "The length ends before it begins.",
    Fault.LINE_TWICE: "Another line counts for the same tokens.",
}
_FIELDS: Final = {
    "price": "price_per_million",
    "input_from": "input_from_tokens",
    "input_to": "input_to_tokens",
}


@extend_schema_field({"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"})
class Price(Amount):
    """An amount that is not negative."""

    def to_internal_value(self, data: Any) -> int:
        amount_nanos: int = super().to_internal_value(data)
        if amount_nanos < 0:
            raise serializers.ValidationError("Not less than zero.", "amount")
        return amount_nanos


class PriceWindowAnswer(serializers.Serializer[Any]):
    """A named part of the week."""

    name = serializers.CharField()
    spans = SpanAnswer(many=True)


class PriceRowAnswer(serializers.Serializer[Any]):
    """A version of a price. Without an organization it is of the list. input, cached_input, output: of the
    standard tier, for a short input outside all windows, per million tokens; null where a draft has none."""

    id = PublicId(kind="price")
    model = serializers.CharField(source="slug")
    currency = serializers.CharField()
    organization = PublicId(kind="organization", source="tenant_id", allow_null=True)
    organization_name = serializers.CharField(source="tenant_name", allow_blank=True)
    state = serializers.ChoiceField(choices=[state.value for state in VersionState])
    active_from = Moment(help_text="Of a draft: says nothing yet.")
    active_to = Moment(allow_null=True)
    created_at = Moment()
    created_by = serializers.CharField(allow_blank=True)
    published_at = Moment(allow_null=True)
    published_by = serializers.CharField(allow_blank=True)
    input = Money(source="input_nanos", allow_null=True)
    cached_input = Money(source="cached_nanos", allow_null=True)
    output = Money(source="output_nanos", allow_null=True)
    has_more = serializers.BooleanField(help_text="Other tiers, windows or input lengths cost otherwise.")


class GapAnswer(serializers.Serializer[Any]):
    """From this input length on, a tier has no price of a class that it needs."""

    service_tier = serializers.CharField()
    token_class = serializers.CharField()
    from_tokens = serializers.IntegerField()


class PriceVersionAnswer(serializers.Serializer[Any]):
    """A version with all that it says. gaps: what a draft lacks before it can be published."""

    version = PriceRowAnswer()
    time_zone = serializers.CharField()
    lines = PriceLineAnswer(many=True)
    windows = PriceWindowAnswer(many=True)
    content_sha256 = serializers.CharField(help_text="The same for equal contents; see `based_on`.")
    gaps = GapAnswer(many=True)
    current = PriceRowAnswer(allow_null=True, help_text="What counts now in its place.")
    scheduled = PriceRowAnswer(many=True, help_text="What will count later in its place.")
    told = serializers.IntegerField(help_text="Organizations that were, or will be, told that it is dearer.")


class IncreaseAnswer(serializers.Serializer[Any]):
    """Where it is dearer, per million tokens, at the time when the difference is greatest. new is null where
    such calls are refused. Windows and minute are null when it is so at all times."""

    token_class = serializers.CharField()
    service_tier = serializers.CharField()
    input_from_tokens = serializers.IntegerField(source="from_tokens")
    input_to_tokens = serializers.IntegerField(source="to_tokens", allow_null=True)
    old = Money(source="old_nanos")
    new = Money(source="new_nanos", allow_null=True)
    old_window = serializers.CharField(allow_null=True)
    new_window = serializers.CharField(allow_null=True)
    minute = serializers.IntegerField(allow_null=True, help_text="Of the week, from Monday 00:00 on.")


class PriceIncreasesAnswer(serializers.Serializer[Any]):
    """against: the version in force; without one nothing is dearer."""

    against = PublicId(kind="price", allow_null=True)
    increases = IncreaseAnswer(many=True)


class PriceLineBody(Strict):
    token_class = OneOf(choices=TokenClass.values)
    service_tier = OneOf(choices=ServiceTier.values, required=False, default="standard")
    window = Text(
        required=False,
        allow_null=True,
        max_length=64,
        help_text="Its name; null: at all times without a line of their own.",
    )
    input_from_tokens = Whole(required=False, min_value=0, default=0)
    input_to_tokens = Whole(
        required=False, allow_null=True, min_value=1, help_text="Exclusive; null is open."
    )
    price_per_million = Price(help_text="In the currency of the version.")


class SpanBody(Strict):
    """Minutes of the week from Monday 00:00 in the price's time zone, half-open."""

    from_minute = Whole(min_value=0, max_value=WEEK_MINUTES - 1)
    to_minute = Whole(min_value=1, max_value=WEEK_MINUTES)


class PriceWindowBody(Strict):
    name = Text(max_length=64)
    spans = SpanBody(many=True)


class PriceContentBody(Strict):
    time_zone = Text(max_length=64, help_text="By whose clocks windows open, such as Europe/Berlin.")
    lines = PriceLineBody(many=True)
    windows = PriceWindowBody(many=True, required=False)
    based_on = Text(
        required=False,
        max_length=64,
        help_text="`content_sha256` of what was read: 409 when somebody else has changed the draft since.",
    )


def lines_of(body: Mapping[str, Any]) -> list[PriceLineContent]:
    return [
        PriceLineContent(
            token_class=line["token_class"],
            service_tier=line["service_tier"],
            window=line.get("window"),
            input_from_tokens=line["input_from_tokens"],
            input_to_tokens=line.get("input_to_tokens"),
            price_nanos_per_million=line["price_per_million"],
        )
        for line in body["lines"]
    ]


def windows_of(body: Mapping[str, Any]) -> list[WindowEntry]:
    return [
        WindowEntry(
            window["name"], tuple((span["from_minute"], span["to_minute"]) for span in window["spans"])
        )
        for window in body.get("windows", ())
    ]


def problem_of(error: InvalidTariff) -> Problem:
    """400, with each mistake at its place in the body."""
    errors = tuple(
        FieldError(
            "body",
            ".".join(
                str(part)
                for part in (one.part, one.index, _FIELDS.get(one.field, one.field))
                if part not in (None, "")
            ),
            one.fault.value.lower(),
            _FAULTS[one.fault].format(other=one.other),
        )
        for one in error.problems
    )
    return Problem(INVALID, f"{errors[0].field}: {errors[0].detail}", errors=errors)


def shown_row(row: VersionRow) -> Any:
    return PriceRowAnswer(row, context={"currency": row.currency}).data


def shown_version(page: VersionPage) -> Any:
    content: PriceContent = page.content
    gaps: Sequence[Gap] = page.gaps
    told = {
        "version": page.row,
        "time_zone": content.time_zone,
        "lines": content.ordered_lines,
        "windows": [
            {"name": name, "spans": [{"from_minute": start, "to_minute": end} for start, end in spans]}
            for name, spans in content.ordered_windows
        ],
        "content_sha256": content.sha256,
        "gaps": gaps,
        "current": page.current,
        "scheduled": page.scheduled,
        "told": page.told,
    }
    return PriceVersionAnswer(told, context={"currency": page.row.currency}).data


def shown_increases(against: Any, increases: Iterable[Increase], currency: str) -> Any:
    content = {"against": against, "increases": list(increases)}
    return PriceIncreasesAnswer(content, context={"currency": currency}).data
