"""Runs one engine simulator until it gets SIGINT or SIGTERM."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
import uvloop

from devstack.engines.app import EngineApp
from devstack.engines.link import LinkedHttpProtocol
from devstack.engines.options import EngineOptions, parse_options

_PR_SET_PDEATHSIG = 1
_SHUTDOWN_S = {"drop": 1, "drain": 60, "hang": 600}
_KEEP_ALIVE_S = 5


def main(argv: list[str]) -> int:
    """Serves until stopped; returns the exit status."""
    options = parse_options(argv)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    # Records are kept by the thousand; looking at them again and again would cost load tests their speed.
    gc.set_threshold(50_000, 20, 100)
    return uvloop.run(_serve(options))


async def _serve(options: EngineOptions) -> int:
    app = EngineApp(options)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=LinkedHttpProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=app.dialect.server_header,
        date_header=app.dialect.server_header,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S[options.shutdown],
    )
    sockets = None if options.listen_fd is None else [socket.socket(fileno=options.listen_fd)]
    server = _EngineServer(config, app)
    try:
        await server.serve(sockets=sockets)
    finally:
        app.books.shut()
    return 0 if server.started else 1


class _EngineServer(uvicorn.Server):
    """Stops as the options say; the listening socket closes at once in any case."""

    def __init__(self, config: uvicorn.Config, app: EngineApp) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # After this, uvicorn raises the signal once more, and nothing else of ours runs.
        await super().shutdown(sockets)
        await self._app.feeds.shut()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            self._app.note_sigterm()
        super().handle_exit(sig, frame)


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel for SIGKILL when the thread that started this process ends; Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        # The parent died before the kernel was asked.
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
