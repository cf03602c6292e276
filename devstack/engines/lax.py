"""Request validation as engines with lax typed models do it: numbers and booleans may be strings."""

from __future__ import annotations

from typing import Any

_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


class LaxError(ValueError):
    """One field is wrong: `kind` and `message` as the validator names them, `field`, and what was given."""

    def __init__(self, kind: str, field: str, message: str, given: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.field = field
        self.message = message
        self.given = given


def lax_int(body: dict[str, Any], field: str) -> int | None:
    """A whole number, None when missing or null. Raises LaxError."""
    value = body.get(field)
    if value is None or isinstance(value, int):
        return None if value is None else int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            raise LaxError("int_parsing", field, message, value) from None
    raise LaxError("int_type", field, "Input should be a valid integer", value)


def lax_cap(body: dict[str, Any], fields: tuple[str, ...]) -> int | None:
    """The first of these whole numbers that is given; all of them are read. Raises LaxError."""
    values = [lax_int(body, field) for field in fields]
    return next((value for value in values if value is not None), None)


def lax_bool(body: dict[str, Any], field: str) -> bool:
    """A truth value, false when missing or null. Raises LaxError."""
    value = body.get(field)
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).lower()
    if isinstance(value, str | int) and text in _TRUE | _FALSE:
        return text in _TRUE
    raise LaxError("bool_parsing", field, "Input should be a valid boolean, unable to interpret input", value)


def lax_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages: a list of objects. Raises LaxError."""
    if "messages" not in body:
        raise LaxError("missing", "messages", "Field required", body)
    messages = body["messages"]
    if not isinstance(messages, list):
        raise LaxError("list_type", "messages", "Input should be a valid list", messages)
    for message in messages:
        if not isinstance(message, dict):
            raise LaxError("dict_type", "messages", "Input should be a valid dictionary", message)
    return messages


def stream_option(body: dict[str, Any], field: str) -> bool:
    """One flag of stream_options, false when that is missing or no object."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get(field) is True
