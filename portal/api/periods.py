"""Periods of an address: half-open, with a default that ends now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from portal.api.fields import Moment
from portal.api.problems import INVALID, FieldError, Problem

DEFAULT: Final = timedelta(days=30)
FROM_HELP: Final = "Beginning, included. Left out: 30 days before the end."
TO_HELP: Final = "End, excluded. Left out: now."


def from_field() -> Moment:
    return Moment(required=False, help_text=FROM_HELP)


def to_field() -> Moment:
    return Moment(required=False, help_text=TO_HELP)


def period_of(parameters: Mapping[str, Any], *, now: datetime) -> tuple[datetime, datetime]:
    """From and to. Errors: Problem 400 for a period that ends before it begins."""
    to_at: datetime = parameters.get("to", now)
    from_at: datetime = parameters.get("from", to_at - DEFAULT)
    if from_at >= to_at:
        raise bad_period("The period ends before it begins.")
    return from_at, to_at


def bad_period(detail: str) -> Problem:
    return Problem(INVALID, detail, errors=(FieldError("query", "from", "period", detail),))
