"""WHAT is sold: models and their prices, and the fleet that serves them."""

from models_catalog.models.catalog import (
    ApiKeyModel,
    CancelPolicy,
    CatalogModel,
    CatalogRevision,
    ModelAlias,
    ModelGrant,
    ModelState,
)
from models_catalog.models.costs import CapacityVersion, PoolCostVersion
from models_catalog.models.curves import DeploymentCurve
from models_catalog.models.feeds import MAX_FEED_GRACE_S, UsageFeed, UsageFeedFormat, feed_code
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
    "MAX_FEED_GRACE_S",
    "ApiKeyModel",
    "CancelPolicy",
    "CapacityVersion",
    "CatalogModel",
    "CatalogRevision",
    "Deployment",
    "DeploymentCurve",
    "Engine",
    "FleetState",
    "ModelAlias",
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
    "UsageFeed",
    "UsageFeedFormat",
    "feed_code",
]
