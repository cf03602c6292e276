"""Connections to the serving backends."""

from models_catalog.engines import UpstreamCall
from portal.inference.config import InferenceConfig
from portal.inference.snapshot import Route
from portal.inference.wire import Response, StaleConnection, Unreachable, WirePool

__all__ = ["StaleConnection", "Upstreams"]

# Addresses that were ever called; those that are not used any more have no connections.
MAX_POOLS = 1000


class Upstreams:
    """One pool of connections an address."""

    def __init__(self, config: InferenceConfig) -> None:
        self._connect_timeout_s = config.connect_timeout_s
        self._pools: dict[str, WirePool] = {}

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    async def send(self, route: Route, call: UpstreamCall, *, is_fresh: bool) -> Response:
        """Send the call and wait for the head of the answer.

        is_fresh: on a connection of its own. There is no time limit but for connecting: the caller's clock
        watches the rest. Raises WireError: Unreachable, StaleConnection, or whatever else is wrong.
        """
        pool = self._pools.get(route.base_url) or self._open(route.base_url)
        headers = {**call.headers, "Accept-Encoding": "identity", "User-Agent": "sluice"}
        if route.credential:
            headers["Authorization"] = f"Bearer {route.credential}"
        return await pool.post(
            call.path,
            headers,
            call.body,
            reuses=route.engine.reuses_connections,
            is_fresh=is_fresh,
        )

    def _open(self, base_url: str) -> WirePool:
        if len(self._pools) >= MAX_POOLS:
            idle = [url for url, pool in self._pools.items() if not pool.is_used]
            for url in idle:
                self._pools.pop(url).close()
        try:
            pool = self._pools[base_url] = WirePool(base_url, connect_timeout_s=self._connect_timeout_s)
        except ValueError as error:
            raise Unreachable("the backend has no address that can be called") from error
        return pool
