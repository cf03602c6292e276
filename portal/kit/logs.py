"""Logging as one JSON object a line, with the ids of the current call and without personal data."""

import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

REDACTED: Final = "[redacted]"
SENSITIVE_NAMES: Final = frozenset(
    {
        "api_key",
        "authorization",
        "body",
        "content",
        "cookie",
        "credentials",
        "email",
        "messages",
        "password",
        "prompt",
        "secret",
        "secret_key",
        "token",
    }
)
"""Fields with these names, or with names that end in `_` and one of these, lose their value."""

_OUR_NAMES: Final = frozenset({"ts", "level", "service", "logger", "event", "request_id"})
_MAX_TEXT: Final = 8_000
_MAX_TRACE: Final = 32_000
_MAX_ITEMS: Final = 50
_MAX_DEPTH: Final = 4

# What may stand in messages and tracebacks although no field is named for it: our API keys (their ids stay
# recognizable), other credentials, passwords within URLs, the ends of links that let people in, the details
# of a database's error, which repeat the values of the row, and addresses. Possessive, so that long lines
# cost no more than their length.
_SENSITIVE_TEXT: Final = re.compile(
    r"(?P<key>sl[cm]_[0-9a-z]{8})[0-9A-Za-z_]++"
    r"|(?P<scheme>\b[Bb]earer\s++)[^\s'\",;]++"
    r"|\b(?:sk|rk|whsec)_[0-9A-Za-z_]{8,}+"
    r"|(?P<url>://[^\s/:@]*+:)[^\s/@]++(?=@)"
    r"|(?P<link>(?<!/members)/invitations/|/confirm-email/|/password/reset/key/)[^\s/'\"?#]++"
    r"|(?P<detail>\bDETAIL:)[^\n]*+"
    r"|(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++"
)
_CUT_MARGIN: Final = 500

_bound: ContextVar[Mapping[str, object]] = ContextVar("sluice_log_fields", default={})  # noqa: B039 - never changed


def configure(service: str, level: str, *, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (default: standard error) as JSON lines of this service.

    Standard output stays free for what commands print. Calling it again replaces what it set up before.
    Raises ValueError for an unknown level.
    """
    handler = _JsonHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_Formatter(service))
    root = logging.getLogger()
    root.setLevel(level.upper())
    # At DEBUG it would write whole contexts of templates, secrets and all.
    logging.getLogger("django.template").setLevel(logging.INFO)
    for old in [handler for handler in root.handlers if isinstance(handler, _JsonHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    logging.captureWarnings(True)


def bind(**fields: object) -> None:
    """Add these fields to every line that the current task, or a task it starts from now on, logs."""
    _bound.set({**_bound.get(), **fields})


def clear() -> None:
    """Forget what was bound in the current task."""
    _bound.set({})


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure` may replace."""


class _Formatter(JsonFormatter):
    def __init__(self, service: str) -> None:
        super().__init__([], json_ensure_ascii=False)
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - a wrong log call must neither fail its caller nor vanish.
            template, kind = str(record.msg), type(error).__name__
            broken = logging.LogRecord(record.name, record.levelno, "", 0, template, None, None)
            broken.created = record.created
            broken.log_error = kind
            return super().format(broken)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        fields: dict[str, Any] = {}
        super().add_fields(fields, record, message_dict)
        trace = {name: fields.pop(name) for name in ("exc_info", "stack_info") if name in fields}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["ts"] = moment.replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["service"] = self._service
        log_data["logger"] = record.name
        log_data["event"] = _clean_text(record.message, _MAX_TEXT)
        log_data["request_id"] = None
        log_data.update(_clean_fields(_bound.get(), 0))
        for name, value in _clean_fields(fields, 0).items():
            # A field of the caller never hides one of ours, except the id of the request.
            log_data[f"{name}_" if name in _OUR_NAMES and name != "request_id" else name] = value
        for name, value in trace.items():
            log_data[name] = _clean_text(str(value), _MAX_TRACE)


def _is_sensitive(name: str) -> bool:
    name = name.lower().replace("-", "_")
    return name in SENSITIVE_NAMES or any(name.endswith(f"_{part}") for part in SENSITIVE_NAMES)


def _clean_fields(fields: Mapping[Any, object], depth: int) -> dict[str, object]:
    clean: dict[str, object] = {}
    for key, value in list(fields.items())[:_MAX_ITEMS]:
        name = str(key)
        clean[name] = REDACTED if _is_sensitive(name) else _clean_value(value, depth + 1)
    return clean


def _clean_value(value: object, depth: int) -> object:
    """The value with nothing sensitive in it, of bounded size, and of types that JSON knows."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON has no word for what is not finite.
        return value if value - value == 0 else str(value)
    if depth <= _MAX_DEPTH:
        if isinstance(value, Mapping):
            return _clean_fields(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean_value(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    return _clean_text(str(value), _MAX_TEXT)


def _clean_text(text: str, max_length: int) -> str:
    # The margin lets the pattern see the whole of what the cut would halve.
    clean = _SENSITIVE_TEXT.sub(_replace, text[: max_length + _CUT_MARGIN])
    return clean if len(clean) <= max_length else clean[:max_length] + "…"


def _replace(match: re.Match[str]) -> str:
    kept = match["key"] or match["scheme"] or match["url"] or match["link"] or match["detail"] or ""
    return kept + REDACTED
