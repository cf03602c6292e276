"""One gateway's view of the fleet: what it sends where, and the rounds that keep what it knows true."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from portal.inference import fleet_state, health
from portal.inference.fleet_state import FleetBoard
from portal.inference.health import HealthWatch
from portal.inference.routing import Routing
from portal.inference.snapshot import CatalogSnapshot, ModelEntry

FADE_S: Final = 1.0

Round = tuple[float, Callable[[], Awaitable[None]]]


class Fleet:
    """Make it before the loops of a process begin; close it after they have ended.

    health_s: between two health checks of a backend; 0 is never. affinity_percent: how long a call may take,
    of what the best deployment takes, where its conversation was served last; 0 is never.
    """

    def __init__(
        self, catalog: CatalogSnapshot, valkey: Redis, *, health_s: int, affinity_percent: int
    ) -> None:
        self.routing = Routing(affinity_factor=affinity_percent / 100)
        self._catalog = catalog
        self._known: Mapping[str, ModelEntry] | None = None
        self._board = FleetBoard(valkey, self.routing)
        self._watch = HealthWatch(self.routing, interval_s=float(health_s)) if health_s else None

    @property
    def rounds(self) -> list[Round]:
        """What is to be done again and again, each with its interval in seconds."""
        rounds: list[Round] = [(fleet_state.SHARE_S, self._share), (FADE_S, self._fade)]
        if self._watch is not None:
            rounds.append((health.LOOK_S, self._watch.look))
        return rounds

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
        await self._board.leave()

    async def _share(self) -> None:
        models = self._catalog.models
        if models is not self._known:
            self._known = models
            self.routing.keep(route for entry in models.values() for route in entry.routes)
        await self._board.share()

    async def _fade(self) -> None:
        self.routing.fade(FADE_S)
