"""The catalog in memory: which models there are and who can serve them. Read by the hot path, never the
truth: admission checks grant, model and price in its own statement."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

import psycopg

from models_catalog.engines import ADAPTERS, EngineAdapter
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time
from portal.kit.secrets import SecretError, SecretStore

logger = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """A deployment that can serve a model."""

    deployment_id: UUID
    backend_id: UUID
    backend_code: str
    base_url: str
    credential: str | None = field(repr=False)
    engine: EngineAdapter
    upstream_model: str
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    id: UUID
    slug: str
    context_tokens: int
    max_output_tokens: int
    default_output_cap_tokens: int
    template_overhead_tokens: int
    image_allowance_tokens: int | None
    capabilities: frozenset[str]
    extra_fields: frozenset[str]
    routes: tuple[Route, ...]


def _entry(
    id_: UUID,
    slug: str,
    context_tokens: int,
    max_output_tokens: int,
    default_output_cap_tokens: int,
    template_overhead_tokens: int,
    image_allowance_tokens: int | None,
    capabilities: list[str],
    extra_fields: list[str],
) -> ModelEntry:
    return ModelEntry(
        id=id_,
        slug=slug,
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        default_output_cap_tokens=default_output_cap_tokens,
        template_overhead_tokens=template_overhead_tokens,
        image_allowance_tokens=image_allowance_tokens,
        capabilities=frozenset(capabilities),
        extra_fields=frozenset(extra_fields),
        routes=(),
    )


class CatalogSnapshot:
    """Refreshed within a second of a change, and at once when a caller names a model that nobody serves."""

    def __init__(
        self, database: Database, secrets: SecretStore, *, on_limits: Callable[[int, float], None]
    ) -> None:
        """on_limits: told at every look the revision of all limits, and when it was asked for (monotonic)."""
        self._database = database
        self._secrets = secrets
        self._on_limits = on_limits
        self._revision = -1
        self._models: Mapping[str, ModelEntry] = {}
        self._lock = asyncio.Lock()
        self._looked_at_s = 0.0

    @property
    def is_loaded(self) -> bool:
        return self._revision >= 0

    async def find(self, slug: str) -> ModelEntry | None:
        entry = self._models.get(slug)
        if entry is None or not entry.routes:
            # It may have been listed or deployed a moment ago. Callers that ask together share one look.
            await self.refresh(asked_at_s=time.monotonic())
            entry = self._models.get(slug)
        return entry

    async def refresh(self, *, asked_at_s: float | None = None) -> None:
        """Load the catalog when its revision has changed. Keeps the old one when the database is away.

        asked_at_s: a look that began after this moment will do.
        """
        async with self._lock:
            if asked_at_s is not None and self._looked_at_s > asked_at_s:
                return
            self._looked_at_s = time.monotonic()
            try:
                await in_time(self._load(), LOOK_UP_TIMEOUT_S)
            except psycopg.Error as error:
                logger.warning("inference.catalog.not_refreshed", extra={"reason": type(error).__name__})

    async def _load(self) -> None:
        async with self._database.connection() as connection:
            asked_at_s = time.monotonic()
            cursor = await connection.execute(
                "SELECT c.revision, l.revision FROM models_catalog_catalogrevision c, quotas_limitrevision l",
                prepare=True,
            )
            row = await cursor.fetchone()
            if row is None:
                return
            self._on_limits(row[1], asked_at_s)
            if row[0] == self._revision:
                return
            cursor = await connection.execute(
                """
                SELECT m.id, m.slug, m.context_tokens, m.max_output_tokens, m.default_output_cap_tokens,
                  m.template_overhead_tokens, m.image_allowance_tokens, m.capabilities, m.extra_fields,
                  d.id, d.upstream_model, b.id, b.code, b.base_url, b.credential_encrypted, b.engine,
                  b.max_concurrency
                FROM models_catalog_catalogmodel m
                LEFT JOIN models_catalog_deployment d ON d.model_id = m.id AND d.state = 'ACTIVE'
                LEFT JOIN models_catalog_servingbackend b ON b.id = d.backend_id AND b.state = 'ACTIVE'
                WHERE m.state = 'ACTIVE' ORDER BY m.slug, b.code
                """
            )
            rows = await cursor.fetchall()
        models: dict[str, ModelEntry] = {}
        for model_columns, route_columns in ((found[:9], found[9:]) for found in rows):
            entry = models.get(model_columns[1]) or _entry(*model_columns)
            route = self._route(*route_columns) if route_columns[2] is not None else None
            models[entry.slug] = replace(entry, routes=(*entry.routes, route)) if route else entry
        self._models = models
        self._revision = row[0]
        logger.info(
            "inference.catalog.loaded", extra={"revision": self._revision, "models": len(self._models)}
        )

    def _route(
        self,
        deployment_id: UUID,
        upstream_model: str,
        backend_id: UUID,
        code: str,
        base_url: str,
        credential: str,
        engine: str,
        max_concurrency: int,
    ) -> Route | None:
        try:
            secret = self._secrets.decrypt(credential) if credential else None
        except SecretError as error:
            logger.error(
                "inference.catalog.credential_unreadable",
                extra={"backend": code, "reason": type(error).__name__},
            )
            return None
        return Route(
            deployment_id,
            backend_id,
            code,
            base_url.rstrip("/"),
            secret,
            ADAPTERS[engine],
            upstream_model,
            max_concurrency,
        )
