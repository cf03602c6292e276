"""WHAT is sold: models and their prices, and the fleet that serves them."""

from models_catalog.models.catalog import (
    ApiKeyModel,
    CatalogModel,
    CatalogRevision,
    ModelGrant,
    ModelState,
)
from models_catalog.models.costs import CapacityVersion, PoolCostVersion
from models_catalog.models.fleet import Deployment, Engine, FleetState, ServingBackend, ServingPool
from models_catalog.models.prices import (
    PriceLine,
    PriceNotice,
    PriceNoticeKind,
    PriceVersion,
    PriceWindow,
    PriceWindowSpan,
    ServiceTier,
    TokenClass,
)

__all__ = [
    "ApiKeyModel",
    "CapacityVersion",
    "CatalogModel",
    "CatalogRevision",
    "Deployment",
    "Engine",
    "FleetState",
    "ModelGrant",
    "ModelState",
    "PoolCostVersion",
    "PriceLine",
    "PriceNotice",
    "PriceNoticeKind",
    "PriceVersion",
    "PriceWindow",
    "PriceWindowSpan",
    "ServiceTier",
    "ServingBackend",
    "ServingPool",
    "TokenClass",
]
