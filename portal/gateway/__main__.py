"""`python -m portal.gateway`: one gateway process."""

import argparse
import asyncio
import os
import signal
import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portal.settings.environment import select_settings

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 20.0
UNSENT_TIMEOUT_S = 15.0


class PromptProtocol(HttpToolsProtocol):
    """Writes wait until the kernel has taken the bytes.

    What the gateway has sent can then not be lost in a buffer of this process when it is killed, so a
    durable checkpoint never claims more than the client got; and a slow client slows its backend.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._unsent_timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._unsent_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # The server itself limits neither the size of a head nor the time that it takes.

    def _expect_head(self) -> None:
        self._head_bytes: int | None = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_timer.cancel()
        self._expect_head()
        state: dict[str, Any] = self.scope["state"]
        state["abort"] = self.transport.abort

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._head_timer.cancel()
        if self.cycle is not None and not self.cycle.response_complete:
            # A request behind a running one: the server would stop reading, and neither notice that the
            # client leaves nor tell the running call of it.
            self.transport.abort()
            return
        super().on_headers_complete()

    # An answer that nobody fetches must not stay in memory: closing alone would wait for the client.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
        self._watch_unsent(sys.maxsize)

    def _watch_unsent(self, before_bytes: int) -> None:
        self._unsent_timer = None
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes >= before_bytes:
            self.transport.abort()
        elif unsent_bytes:
            self._unsent_timer = self.loop.call_later(UNSENT_TIMEOUT_S, self._watch_unsent, unsent_bytes)


class DrainingServer(uvicorn.Server):
    """Tells the runtime of a stop signal at once; running calls get their time to end."""

    def __init__(self, config: uvicorn.Config, on_stop: Any) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        # The server's own handler would raise the signal once more at the end, so that an orderly stop
        # looked like a crash. A second Ctrl-C ends at once, as it does there.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def main() -> None:
    parser = argparse.ArgumentParser(prog="portal.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()

    select_settings(database_role="dataplane")
    import django

    django.setup(set_prefix=False)
    from django.conf import settings

    from portal.gateway.asgi import Gateway
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
        http=PromptProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.TUNING["SLUICE_DRAIN_S"] + 5,
    )
    server = DrainingServer(config, runtime.begin_drain)
    server.run()
    raise SystemExit(0 if server.started else os.EX_UNAVAILABLE)


if __name__ == "__main__":
    main()
