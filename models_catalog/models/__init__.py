"""WHAT is sold: models and their prices, and the fleet that serves them."""

from models_catalog.models.catalog import (
    ApiKeyModel,
    CatalogModel,
    CatalogRevision,
    ModelGrant,
    ModelState,
)
from models_catalog.models.fleet import Deployment, Engine, FleetState, ServingBackend, ServingPool
from models_catalog.models.prices import (
    PriceLine,
    PriceVersion,
    PriceWindow,
    PriceWindowSpan,
    ServiceTier,
    TokenClass,
)

__all__ = [
    "ApiKeyModel",
    "CatalogModel",
    "CatalogRevision",
    "Deployment",
    "Engine",
    "FleetState",
    "ModelGrant",
    "ModelState",
    "PriceLine",
    "PriceVersion",
    "PriceWindow",
    "PriceWindowSpan",
    "ServiceTier",
    "ServingBackend",
    "ServingPool",
    "TokenClass",
]
