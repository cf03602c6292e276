"""What bodies, parameters and answers are made of. Input is taken as it is meant to be written, or refused:
a text is no number, a date without a zone is no moment, an unknown name is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import (
    MaxLengthValidator,
    MinLengthValidator,
    ProhibitNullCharactersValidator,
)
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount

ID_PATTERN: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
AMOUNT_PATTERN: Final = r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$"
_MOMENT: Final = re.compile(
    r"(2[0-9]{3})-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})")


class Strict(serializers.Serializer[Any]):
    """A body, or the parameters of an address: names that it does not know are refused."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(str(name) for name in set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError(
                    {
                        name: [serializers.ErrorDetail("There is no such name here.", "unknown")]
                        for name in unknown
                    }
                )
        return super().to_internal_value(data)


class Nothing(Strict):
    """No body, or an empty object."""


class Text(serializers.CharField):
    """A text, and nothing that could be made one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A whole number of a body; in an address, its digits."""

    def to_internal_value(self, data: Any) -> int:
        from_address = isinstance(self.parent, Parameters)
        if from_address and isinstance(data, str) and _WHOLE.fullmatch(data):
            return int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Truth(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Moment(serializers.DateTimeField):
    """RFC 3339 with a zone, of the years 2000 to 2999; answers are in UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
            self.fail("invalid", format="2026-11-01T00:00:00Z")
        try:
            return datetime.fromisoformat(value.upper())
        except (ValueError, OverflowError):
            self.fail("invalid", format="2026-11-01T00:00:00Z")


class OneOf(serializers.ChoiceField):
    """One of a few words, spelled just so."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=str(data)[:50])
        return super().to_internal_value(data)


class Labels(serializers.DictField):
    """Names and values of a body."""

    child = Text(allow_blank=True, max_length=64, trim_whitespace=False)
    _checks = (
        MinLengthValidator(1),
        MaxLengthValidator(64),
        ProhibitNullCharactersValidator(),
        ProhibitSurrogateCharactersValidator(),
    )

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if isinstance(data, Mapping):
            for name in data:
                for check in self._checks:
                    try:
                        check(name)
                    except (DjangoValidationError, serializers.ValidationError):
                        raise serializers.ValidationError("Names have 1 to 64 characters.", "name") from None
        found: dict[str, str] = super().to_internal_value(data)
        return found


class PublicId(serializers.Field):  # type: ignore[type-arg]
    """An id as addresses spell it, and its UUID. kind: a key of PREFIXES."""

    def __init__(self, *, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def to_representation(self, value: Any) -> str:
        return public_id(PREFIXES[self.kind], value)

    def to_internal_value(self, data: Any) -> Any:
        try:
            return parse_public_id(PREFIXES[self.kind], data if isinstance(data, str) else "")
        except InvalidPublicId:
            raise serializers.ValidationError(f"Not a {PREFIXES[self.kind]}_ id.", "id") from None


class MoneyAnswer(serializers.Serializer[Any]):
    """An amount of money, exactly: `amount` is the decimal number, `nanos` the same in billionths of the
    currency's unit. Both are texts, because many readers of JSON would round such numbers."""

    amount = serializers.CharField(help_text="Decimal number with up to nine decimals.")
    currency = serializers.CharField(help_text="ISO 4217 code.")
    nanos = serializers.RegexField(r"^-?[0-9]+$", help_text="The same in nano-units: 10⁹ are one unit.")


def page_of(row: type[serializers.Serializer[Any]], name: str) -> type[serializers.Serializer[Any]]:
    """The answer of a list: rows, and the cursor of the next page, null on the last one."""
    fields = {
        "data": row(many=True),
        "next_cursor": serializers.CharField(allow_null=True, help_text="Of the next page; null: none."),
        "__doc__": "A page of a list.",
        "__module__": row.__module__,
    }
    return type(name, (serializers.Serializer,), fields)


def money_json(amount_nanos: int, currency: str) -> dict[str, str]:
    """An amount as answers write it."""
    return {
        "amount": amount_to_decimal_text(amount_nanos),
        "currency": currency,
        "nanos": str(amount_nanos),
    }


@extend_schema_field(MoneyAnswer)
class Money(serializers.Field):  # type: ignore[type-arg]
    """Nano-units of an answer, in the currency of its context."""

    def to_representation(self, value: int) -> dict[str, str]:
        return money_json(value, self.context["currency"])


@extend_schema_field({"type": "string", "pattern": AMOUNT_PATTERN})
class Amount(serializers.Field):  # type: ignore[type-arg]
    """An amount of a body: a plain decimal text such as "12.50", as nano-units."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or re.fullmatch(AMOUNT_PATTERN, data) is None:
            raise serializers.ValidationError('A decimal number in quotes, such as "12.50".', "amount")
        try:
            return parse_amount(data)
        except InvalidAmount as error:
            raise serializers.ValidationError(f"{error}.", "amount") from None

    def to_representation(self, value: int) -> str:
        return amount_to_decimal_text(value)


class Parameters(Strict):
    """The parameters behind the question mark."""


class Page(Parameters):
    """Which page of a list."""

    limit = Whole(
        required=False, min_value=1, max_value=200, default=50, help_text="Rows of a page, at most."
    )
    cursor = Text(
        required=False,
        max_length=2000,
        help_text="`next_cursor` of the page before. It remembers the filters, which may be left out then.",
    )
