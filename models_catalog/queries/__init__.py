"""Reads of the catalog: what is on offer, to whom, and for how much."""

from models_catalog.operations import ModelNotFound
from models_catalog.queries.listing import (
    Facet,
    ModelList,
    ModelPage,
    ModelRow,
    enabled_models,
    list_models,
    model_page,
)
from models_catalog.queries.prices import (
    ClassPrice,
    DailyTimes,
    Line,
    ListedPrice,
    Price,
    PriceChange,
    WeekSpan,
    Window,
)

__all__ = [
    "ClassPrice",
    "DailyTimes",
    "Facet",
    "Line",
    "ListedPrice",
    "ModelList",
    "ModelNotFound",
    "ModelPage",
    "ModelRow",
    "Price",
    "PriceChange",
    "WeekSpan",
    "Window",
    "enabled_models",
    "list_models",
    "model_page",
]
