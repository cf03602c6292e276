"""The catalog in memory: which models there are and who can serve them. Read by the hot path, never the
truth: admission checks grant, model and price in its own statement."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from models_catalog.engines import ADAPTERS, Endpoint, EngineAdapter
from models_catalog.fleet.curve import Curve, curve_of
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time
from portal.kit.secrets import SecretError, SecretStore

logger = logging.getLogger(__name__)

POLL_S = 1.0
# Costs begin and end at their moments, without a change of the catalog.
RELOAD_S = 600.0


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
    pool_id: UUID | None = None
    # None: what the model itself says.
    capabilities: frozenset[str] | None = None
    context_tokens: int | None = None
    curve: Curve | None = None
    # What the energy of a million output tokens costs there; None when unknown or not to be compared.
    marginal_cost_nanos: int | None = None
    cost_currency: str | None = None


_OF_TEXT = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES})
_OF_EMBEDDINGS = frozenset({Endpoint.EMBEDDINGS})


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model with the routes that serve it. endpoints: those that the catalog names, empty when it leaves
    them to the model's capabilities; successor: the slug of what to use instead of a deprecated one."""

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
    endpoints: frozenset[Endpoint] = frozenset()
    aliases: tuple[str, ...] = ()
    deprecated_at: datetime | None = None
    sunset_at: datetime | None = None
    successor: str | None = None
    _by_endpoint: "dict[Endpoint, ModelEntry | None]" = field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    def at(self, endpoint: Endpoint) -> "ModelEntry | None":
        """The model with the routes that serve it at an endpoint; None when it is not offered there. Always
        the same object: the routing knows a group of routes by it."""
        if endpoint not in self._by_endpoint:
            self._by_endpoint[endpoint] = self._narrowed(endpoint)
        return self._by_endpoint[endpoint]

    def _narrowed(self, endpoint: Endpoint) -> "ModelEntry | None":
        if endpoint not in (self.endpoints or self._suitable()):
            return None
        routes = tuple(route for route in self.routes if self._is_spoken(route, endpoint))
        if len(routes) == len(self.routes):
            return self
        return replace(self, routes=routes) if routes else None

    def offered(self) -> list[Endpoint]:
        """The endpoints at which it can be called."""
        return [endpoint for endpoint in Endpoint if self.at(endpoint) is not None]

    def is_retired(self, now: datetime) -> bool:
        return self.sunset_at is not None and self.sunset_at <= now

    def _suitable(self) -> frozenset[Endpoint]:
        if "embeddings" not in self.capabilities:
            return _OF_TEXT
        return _OF_EMBEDDINGS | _OF_TEXT if "chat" in self.capabilities else _OF_EMBEDDINGS

    def _is_spoken(self, route: Route, endpoint: Endpoint) -> bool:
        # Of an engine that we know only as compatible, the catalog may know more.
        return endpoint in route.engine.endpoints or (
            route.engine.name == "generic" and endpoint in self.endpoints
        )


# Of a row of the question below: the columns of the model, and behind them those of a route.
_MODEL_COLUMNS = 14


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
    endpoints: list[str],
    aliases: list[str],
    deprecated_at: datetime | None,
    sunset_at: datetime | None,
    successor: str | None,
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
        endpoints=frozenset(Endpoint(name) for name in endpoints),
        aliases=tuple(aliases),
        deprecated_at=deprecated_at.astimezone(UTC) if deprecated_at else None,
        sunset_at=sunset_at.astimezone(UTC) if sunset_at else None,
        successor=successor,
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
        self._by_name: Mapping[str, ModelEntry] = {}
        self._lock = asyncio.Lock()
        self._looked_at_s = 0.0
        self._loaded_at_s = 0.0

    @property
    def is_loaded(self) -> bool:
        return self._revision >= 0

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """Every model by its slug: another object whenever the catalog was loaded anew."""
        return self._models

    def known(self, slug: str) -> ModelEntry | None:
        """The model as it is in memory."""
        return self._models.get(slug)

    async def find(self, name: str) -> ModelEntry | None:
        """The model of a slug or an alias."""
        entry = self._by_name.get(name)
        if entry is None or not entry.routes:
            # It may have been listed or deployed a moment ago. Callers that ask together share one look.
            await self.refresh(asked_at_s=time.monotonic())
            entry = self._by_name.get(name)
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
            if row[0] == self._revision and asked_at_s - self._loaded_at_s < RELOAD_S:
                return
            cursor = await connection.execute(
                """
                SELECT m.id, m.slug, m.context_tokens, m.max_output_tokens, m.default_output_cap_tokens,
                  m.template_overhead_tokens, m.image_allowance_tokens, m.capabilities, m.extra_fields,
                  m.endpoints, ARRAY(SELECT a.name FROM models_catalog_modelalias a
                                     WHERE a.model_id = m.id ORDER BY a.name),
                  m.deprecated_at, m.sunset_at, n.slug,
                  d.id, d.upstream_model, b.id, b.code, b.base_url, b.credential_encrypted, b.engine,
                  b.max_concurrency, b.pool_id, d.capabilities, d.context_tokens, e.currency, e.nanos,
                  q.concurrency, q.ttft_p50_ms, q.ttft_p95_ms, q.inter_token_us, q.output_tokens_per_s,
                  q.prompt_tokens, q.output_tokens, q.prefill_ns, q.certified_concurrency,
                  q.certified_tokens_per_s, q.input_weight, q.cached_weight, q.measured_at
                FROM models_catalog_catalogmodel m
                LEFT JOIN models_catalog_catalogmodel n ON n.id = m.successor_id
                LEFT JOIN models_catalog_deployment d ON d.model_id = m.id AND d.state = 'ACTIVE'
                LEFT JOIN models_catalog_servingbackend b ON b.id = d.backend_id AND b.state = 'ACTIVE'
                LEFT JOIN LATERAL (
                  SELECT * FROM models_catalog_deploymentcurve
                  WHERE deployment_id = d.id ORDER BY measured_at DESC, id DESC LIMIT 1
                ) q ON true
                LEFT JOIN catalog_energy_costs() e ON e.deployment_id = d.id
                WHERE m.state = 'ACTIVE' ORDER BY m.slug, b.code
                """
            )
            rows = await cursor.fetchall()
        models: dict[str, ModelEntry] = {}
        for found in rows:
            model_columns, route_columns = found[:_MODEL_COLUMNS], found[_MODEL_COLUMNS:]
            entry = models.get(model_columns[1]) or _entry(*model_columns)
            route = self._route(*route_columns) if route_columns[2] is not None else None
            models[entry.slug] = replace(entry, routes=(*entry.routes, route)) if route else entry
        self._models = {slug: _comparable(entry) for slug, entry in models.items()}
        self._loaded_at_s = asked_at_s
        self._by_name = self._models | {
            name: entry for entry in self._models.values() for name in entry.aliases
        }
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
        pool_id: UUID,
        capabilities: list[str] | None,
        context_tokens: int | None,
        currency: str | None,
        energy_nanos: int | None,
        *curve: Any,
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
            pool_id,
            None if capabilities is None else frozenset(capabilities),
            context_tokens,
            None if curve[0] is None else curve_of(*curve),
            energy_nanos,
            currency,
        )


def _comparable(entry: ModelEntry) -> ModelEntry:
    """The model with costs that can be compared: of routes in several currencies none is cheaper."""
    if len({route.cost_currency for route in entry.routes} - {None}) < 2:
        return entry
    return replace(entry, routes=tuple(replace(route, marginal_cost_nanos=None) for route in entry.routes))
