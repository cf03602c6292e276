"""What the catalog holds now: the other side of the comparison with a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from models_catalog.catalog_file.timeline import Published
from models_catalog.catalog_file.wanted import WantedCatalog
from models_catalog.models import (
    CatalogModel,
    Deployment,
    ModelAlias,
    PriceVersion,
    ServingBackend,
    ServingPool,
    UsageFeed,
)
from models_catalog.pricing.storage import read_contents


@dataclass(frozen=True, slots=True)
class CatalogState:
    """Rows by the names that files use; published list versions by model and currency."""

    pools: dict[str, ServingPool]
    backends: dict[str, ServingBackend]
    models: dict[str, CatalogModel]
    deployments: dict[tuple[UUID, UUID], Deployment]
    versions: dict[tuple[UUID, str], list[Published]]
    aliases: dict[str, ModelAlias]
    feeds: dict[str, UsageFeed]


def read_state(wanted: WantedCatalog) -> CatalogState:
    """The rows that the file may change or refer to, of the current scope."""
    pool_codes = wanted.pool_codes | {each.name for each in wanted.references if each.kind == "pool"}
    backend_codes = wanted.backend_codes | {each.name for each in wanted.references if each.kind == "backend"}
    slugs = {model.slug for model in wanted.models}
    slugs |= {each.name for each in wanted.references if each.kind == "model"}
    names = [name for model in wanted.models for name in model.aliases or ()]
    models = {model.slug: model for model in CatalogModel.objects.filter(slug__in=slugs)}
    priced = [models[model.slug].id for model in wanted.models if model.prices and model.slug in models]
    return CatalogState(
        pools={pool.code: pool for pool in ServingPool.objects.filter(code__in=pool_codes)},
        backends={
            backend.code: backend
            for backend in ServingBackend.objects.filter(code__in=backend_codes).select_related("pool")
        },
        models=models,
        deployments={
            (deployment.model_id, deployment.backend_id): deployment
            for deployment in Deployment.objects.filter(model__in=models.values())
        },
        versions=_published_versions(priced),
        aliases={
            alias.name: alias
            for alias in ModelAlias.objects.filter(
                Q(model__in=models.values()) | Q(name__in=names)
            ).select_related("model")
        },
        feeds={
            feed.code: feed
            for feed in UsageFeed.objects.filter(
                code__in=[feed.code for backend in wanted.backends for feed in backend.feeds]
            )
        },
    )


def _published_versions(model_ids: Iterable[UUID]) -> dict[tuple[UUID, str], list[Published]]:
    """The published list versions of these models, past ones too; private prices of tenants are not read."""
    versions = list(
        PriceVersion.objects.filter(model__in=model_ids, tenant=None, published_at__isnull=False).order_by(
            "active_from"
        )
    )
    contents = read_contents(versions)
    found: dict[tuple[UUID, str], list[Published]] = defaultdict(list)
    for version in versions:
        found[version.model_id, version.currency].append(
            Published(version.id, version.active_from, version.active_to, contents[version.id])
        )
    return found
