"""What a visitor asks of the catalog, as it stands in the address. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy

from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.queries.listing import MAX_SEARCH_LENGTH, Sort
from portal.kit.money import InvalidAmount, amount_to_decimal_text, parse_amount

MAX_CHOICES: Final = 20
MAX_SLUG_LENGTH: Final = 120
MAX_CONTEXT_TOKENS: Final = 20_000_000
CONTEXT_STEPS: Final = (8_000, 32_000, 128_000, 200_000, 1_000_000)
SORTS: Final[Mapping[Sort, str | Promise]] = {
    "name": gettext_lazy("Name"),
    "input_price": gettext_lazy("Input price, lowest first"),
    "context": gettext_lazy("Context, longest first"),
    "newest": gettext_lazy("Newest first"),
}


@dataclass(frozen=True, slots=True)
class CatalogFilters:
    """A search of the catalog. max_price_text: as it was written, shown again when it is no amount.
    chosen_sort: empty for the order that fits: the best match of words, by name without words.

    min_context: tokens; max_input_price: nano-units of `currency` per million tokens; after: a slug.
    """

    currency: str
    search: str = ""
    vendors: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    min_context: int | None = None
    max_input_price: int | None = None
    max_price_text: str = ""
    chosen_sort: str = ""
    after: str = ""

    @property
    def sort(self) -> Sort:
        for sort in SORTS:
            if sort == self.chosen_sort:
                return sort
        return "relevance" if self.search else "name"

    @property
    def has_bad_price(self) -> bool:
        return bool(self.max_price_text) and self.max_input_price is None

    @property
    def is_narrowed(self) -> bool:
        """Whether there could be fewer models than there are."""
        return bool(
            self.search
            or self.vendors
            or self.capabilities
            or self.min_context is not None
            or self.max_input_price is not None
        )


def read_filters(query: QueryDict, *, currency: str) -> CatalogFilters:
    """The filters of an address. What makes no sense in it counts as absent."""
    price_text = _text(query, "max_price", 32)
    return CatalogFilters(
        currency=currency,
        search=_text(query, "q", MAX_SEARCH_LENGTH),
        vendors=_choices(query, "vendor"),
        capabilities=_choices(query, "capability"),
        min_context=_context(query),
        max_input_price=_price(price_text),
        max_price_text=price_text,
        chosen_sort=query.get("sort", "") if query.get("sort", "") in SORTS else "",
        after=_text(query, "after", MAX_SLUG_LENGTH),
    )


def address_of(filters: CatalogFilters, *, chosen_currency: str) -> str:
    """The filters as a query without what is not set, so that an address can be read and shared.

    chosen_currency: the one that was asked for, empty when it is so without asking.
    """
    price = filters.max_price_text
    if filters.max_input_price is not None:
        price = amount_to_decimal_text(filters.max_input_price)
    values: MultiValueDict[str, str] = MultiValueDict()
    for name, value in (
        ("q", filters.search),
        ("min_context", str(filters.min_context or "")),
        ("max_price", price),
        ("currency", chosen_currency),
        ("sort", filters.chosen_sort),
        ("after", filters.after),
    ):
        if value:
            values[name] = value
    for name, several in (("vendor", filters.vendors), ("capability", filters.capabilities)):
        if several:
            values.setlist(name, list(several))
    return urlencode(values, doseq=True)


def _text(query: QueryDict, name: str, length: int) -> str:
    return query.get(name, "").replace("\0", " ").strip()[:length]


def _choices(query: QueryDict, name: str) -> tuple[str, ...]:
    given: Sequence[str] = query.getlist(name)[:MAX_CHOICES]
    return tuple(
        dict.fromkeys(one for one in given if one and "\0" not in one and len(one) <= MAX_SLUG_LENGTH)
    )


def _context(query: QueryDict) -> int | None:
    text = query.get("min_context", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        return None
    return int(text) if 0 < int(text) <= MAX_CONTEXT_TOKENS else None


def _price(text: str) -> int | None:
    try:
        amount_nanos = parse_amount(text.replace(",", "."))
    except InvalidAmount:
        return None
    return min(amount_nanos, MAX_PRICE_NANOS_PER_MILLION) if amount_nanos >= 0 else None
