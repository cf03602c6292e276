"""The inference runtime of the web process: one for all its sockets, from start to shutdown."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from portal.inference.config import inference_config
from portal.inference.runtime import Runtime
from portal.kit.secrets import SecretStore
from portal.playground.receipts import Receipts

logger = logging.getLogger(__name__)

# People type, programs hammer: the playground gets by with the smallest pool that the runtime allows.
POOL_SIZE = 8
# Whoever reloads a page does not wait for a restart; calls are cut at once and billed as delivered.
DRAIN_S = 0


class Inference:
    """Opened and closed by the process's lifespan. A database that is away does not keep it from opening:
    the pool and the catalog reconnect by themselves, and pages are served meanwhile."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._secrets: SecretStore | None = None
        self._receipts: Receipts | None = None

    @property
    def runtime(self) -> Runtime | None:
        """None before the start, after the shutdown, and without a store of secrets."""
        return self._runtime

    @property
    def secrets(self) -> SecretStore | None:
        return self._secrets

    @property
    def receipts(self) -> Receipts:
        """Only while there is a runtime."""
        assert self._receipts is not None
        return self._receipts

    async def open(
        self,
        *,
        database: Mapping[str, Any],
        secrets: SecretStore | None,
        valkey_url: str,
        tuning: Mapping[str, int],
    ) -> None:
        """database: the Django DATABASES entry of the data plane's role."""
        if secrets is None:
            logger.warning("playground.closed", extra={"reason": "SECRETS_DIR is not set"})
            return
        config = inference_config(database=database, secrets=secrets, valkey_url=valkey_url, tuning=tuning)
        runtime = Runtime(replace(config, pool_size=POOL_SIZE, drain_s=DRAIN_S))
        await runtime.open()
        self._runtime, self._secrets = runtime, secrets
        self._receipts = Receipts(runtime.database)

    async def close(self) -> None:
        """Ends the calls in progress, billing what was delivered, and flushes what is queued."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.close()


INFERENCE = Inference()
