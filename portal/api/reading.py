"""Parameters and bodies, checked by their serializers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from portal.api.fields import Nothing, Parameters
from portal.api.problems import INVALID, FieldError, Problem, field_errors


def checked_parameters(wanted: type[Parameters] | None, given: QueryDict) -> Mapping[str, Any]:
    """What stands behind the question mark. Errors: Problem 400, naming each parameter that is wrong."""
    serializer_class = wanted or Parameters
    lists = {
        name for name, field in serializer_class().fields.items() if isinstance(field, serializers.ListField)
    }
    repeated = [name for name, values in given.lists() if len(values) > 1 and name not in lists]
    if repeated:
        found = tuple(FieldError("query", name, "repeated", "It may be given once.") for name in repeated)
        raise Problem(INVALID, "A parameter is repeated.", errors=found)
    plain = {name: values if name in lists else values[0] for name, values in given.lists()}
    return _checked(serializer_class(data=plain), "query")


def checked_body(wanted: type[serializers.Serializer[Any]] | None, given: Any) -> Mapping[str, Any]:
    """The body. Errors: Problem 400, naming each field that is wrong."""
    return _checked((wanted or Nothing)(data=given), "body")


def _checked(serializer: serializers.Serializer[Any], place: str) -> Mapping[str, Any]:
    if not serializer.is_valid():
        errors = field_errors(place, serializer.errors)
        first = errors[0]
        named = f"{first.field}: {first.detail}" if first.field else first.detail
        raise Problem(INVALID, named, errors=errors)
    checked: Mapping[str, Any] = serializer.validated_data
    return checked
