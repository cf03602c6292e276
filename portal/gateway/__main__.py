"""`python -m portal.gateway`: one gateway process."""

import argparse
import gc
import os
import resource
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from portal.settings.environment import select_settings

if TYPE_CHECKING:
    from portal.inference.runtime import Runtime

# Calls that are cut at the end of the drain say so to their clients.
LAST_WORDS_S = 1.0
# Calls leave few cycles behind, and looking for them is not free.
GC_THRESHOLDS = (10_000, 50, 50)


class DrainingServer(uvicorn.Server):
    """Of a stop signal the runtime hears at once. As long as calls are running the server goes on listening,
    so that whoever comes is told to come back later (503) instead of finding nobody."""

    def __init__(self, config: uvicorn.Config, runtime: "Runtime", drain_s: float) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._drain_s = drain_s
        self._stops_at_s = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays; looking through it again and again would hold up every stream.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The server's own handler would raise the signal once more at the end, so that an orderly stop
        # looked like a crash. A second Ctrl-C ends at once, as it does there.
        is_second = self._runtime.is_draining
        self.force_exit = is_second and sig == signal.SIGINT
        if self.force_exit or not self.started:
            self.should_exit = True
        if not is_second:
            self._runtime.begin_drain()
            self._stops_at_s = time.monotonic() + self._drain_s + LAST_WORDS_S

    async def on_tick(self, counter: int) -> bool:
        if self._runtime.is_draining and (not self._runtime.live or time.monotonic() > self._stops_at_s):
            self.should_exit = True
        return await super().on_tick(counter)


def main() -> None:
    parser = argparse.ArgumentParser(prog="portal.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()

    # A stream takes two descriptors, and the usual limit is a thousand.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    select_settings(database_role="dataplane")
    import django

    django.setup(set_prefix=False)
    from django.conf import settings

    from portal.gateway.asgi import Gateway
    from portal.gateway.protocol import GatewayProtocol
    from portal.inference.config import inference_config
    from portal.inference.runtime import Runtime
    from portal.kit import logs

    logs.configure("gateway", settings.LOG_LEVEL)
    if settings.SECRET_STORE is None:
        parser.error("SECRETS_DIR must be set")
    runtime = Runtime(
        inference_config(
            database=settings.DATABASES["dataplane"],
            secrets=settings.SECRET_STORE,
            valkey_url=settings.VALKEY_URL,
            tuning=settings.TUNING,
        )
    )
    gateway = Gateway(
        runtime,
        max_body_bytes=settings.TUNING["SLUICE_MAX_BODY_BYTES"],
        body_timeout_s=settings.TUNING["SLUICE_BODY_TIMEOUT_S"],
        metrics_token=settings.METRICS_TOKEN,
    )
    config = uvicorn.Config(
        gateway,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.TUNING["SLUICE_DRAIN_S"] + 5,
    )
    server = DrainingServer(config, runtime, settings.TUNING["SLUICE_DRAIN_S"])
    server.run()
    raise SystemExit(0 if server.started else os.EX_UNAVAILABLE)


if __name__ == "__main__":
    main()
