"""What the audit log holds, as people read it: exact amounts, shares and moments instead of raw units."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.utils.html import format_html_join
from django.utils.translation import pgettext

from portal.pages.tags import MINUS, NONE, amount_text, count_text, moment
from quotas.models import BUDGET_KINDS

MAX_TEXT_LENGTH: Final = 300
MAX_ITEMS: Final = 30
DIGEST_LENGTH: Final = 12
_UNITS: Final = re.compile(r"_(nanos|ppm|thousandths)(?=_|$)")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def name_text(name: str) -> str:
    """`energy per kwh` of `energy_nanos_per_kwh`: the unit stands in the value."""
    return _UNITS.sub("", name).replace("_", " ")


def value_text(name: str, value: Any, facts: Mapping[str, Any]) -> str:
    """A value of an event in words; what is not known stays as it is. It may hold markup, escaped.

    name: its unit is in it (`_nanos`, `_ppm`, `_thousandths`). facts: what stands beside it, of which
    `currency` and `kind` say what an amount is of.
    """
    if value is None or value in ("", [], {}):
        return NONE
    if isinstance(value, bool):
        return pgettext("fact", "yes") if value else pgettext("fact", "no")
    if isinstance(value, int):
        return _number_text(name, value, facts)
    if isinstance(value, str):
        return _string_text(value)
    if isinstance(value, list):
        return _joined([value_text(name, one, facts) for one in value], "; ")
    if isinstance(value, dict):
        return _joined(_parts(name, value, facts), ", ")
    return json.dumps(value, ensure_ascii=False)[:MAX_TEXT_LENGTH]


def _parts(name: str, values: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    if name == "rules":
        # Of tiers: an amount for each currency.
        return [value_text("paid_nanos", one, {"currency": currency}) for currency, one in values.items()]
    inner = {"currency": facts.get("currency"), **values}
    return [
        _joined([name_text(key), value_text(key, one, inner)], " ")
        for key, one in values.items()
        if key != "currency" and one is not None
    ]


def _number_text(name: str, value: int, facts: Mapping[str, Any]) -> str:
    units = _UNITS.findall(name)
    if "nanos" in units or (name == "value" and facts.get("kind") in BUDGET_KINDS):
        currency = facts.get("currency")
        return amount_text(value, str(currency)) if currency else _decimal_text(value, 9)
    if "ppm" in units:
        return f"{_decimal_text(value, 4)} %"
    # Weights of capacities are in thousandths, as their model says.
    if "thousandths" in units or name.endswith("_weight"):
        return _decimal_text(value, 3)
    return count_text(value).replace("-", MINUS)


def _decimal_text(value: int, places: int) -> str:
    """Exact, with no more places than it needs."""
    text = f"{Decimal(value).scaleb(-places):,f}".replace("-", MINUS)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _string_text(value: str) -> str:
    if _DIGEST.fullmatch(value):
        return f"{value[:DIGEST_LENGTH]}…"
    if _MOMENT.fullmatch(value):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return value[:MAX_TEXT_LENGTH]
        if at.tzinfo is not None:
            return moment(at)
    return value if len(value) <= MAX_TEXT_LENGTH else f"{value[:MAX_TEXT_LENGTH]}…"


def _joined(parts: list[str], between: str) -> str:
    shown = parts[:MAX_ITEMS] + (["…"] if len(parts) > MAX_ITEMS else [])
    return format_html_join(between, "{}", ((one,) for one in shown))
