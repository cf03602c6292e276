"""Cursors: where a list goes on. They are signed, for one list, one caller and one choice of filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.core import signing

from portal.api.problems import INVALID, FieldError, Problem

_SALT: Final = "api.cursor"


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Which list, whose, chosen how, and behind what it goes on."""

    operation: str
    caller: str
    filters: dict[str, Any]
    place: list[Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """The page that is asked for: the first page's filters, the place behind which it begins, its length."""

    operation: str
    caller: str
    filters: Mapping[str, Any]
    place: Sequence[Any] | None
    limit: int

    def cursor(self, *place: Any) -> str:
        """The text with which the next page is asked for. place: what JSON can say, or UUIDs and moments."""
        content = _Cursor(self.operation, self.caller, dict(self.filters), list(place))
        return signing.dumps(msgspec.to_builtins(content), salt=_SALT, compress=True)


def read_listing(*, operation: str, caller: str, parameters: Mapping[str, Any]) -> Listing:
    """The page that validated parameters ask for. Errors: Problem 400 for a cursor of anything else."""
    filters = {name: value for name, value in parameters.items() if name not in ("limit", "cursor")}
    text = parameters.get("cursor")
    if text is None:
        return Listing(operation, caller, filters, None, parameters["limit"])
    try:
        found = msgspec.convert(signing.loads(text, salt=_SALT), _Cursor)
    except (signing.BadSignature, msgspec.ValidationError, ValueError):
        raise _wrong("This is no cursor of ours.") from None
    if (found.operation, found.caller) != (operation, caller):
        raise _wrong("This cursor is of another list.")
    given = msgspec.to_builtins(filters)
    if any(found.filters.get(name) != value for name, value in given.items()):
        raise _wrong("This cursor was made with other filters.")
    return Listing(operation, caller, found.filters, found.place, parameters["limit"])


def page_json(rows: Sequence[Any], next_cursor: str | None) -> dict[str, Any]:
    return {"data": rows, "next_cursor": next_cursor}


def moment(value: Any) -> datetime:
    """A moment that went through a cursor."""
    return msgspec.convert(value, datetime)


def identifier(value: Any) -> UUID:
    """An id that went through a cursor."""
    return msgspec.convert(value, UUID)


def _wrong(detail: str) -> Problem:
    return Problem(INVALID, detail, errors=(FieldError("query", "cursor", "cursor", detail),))
