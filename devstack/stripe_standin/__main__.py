"""Runs the stand-in until it gets SIGINT or SIGTERM."""

from __future__ import annotations

import socket
import sys

import uvicorn
import uvloop

from devstack.engines.__main__ import die_with_parent
from devstack.engines.link import LinkedHttpProtocol
from devstack.stripe_standin.app import StandinApp
from devstack.stripe_standin.options import Options, parse_options


def main(argv: list[str]) -> int:
    """Serves until stopped; returns the exit status."""
    options = parse_options(argv)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    return uvloop.run(_serve(options))


async def _serve(options: Options) -> int:
    app = StandinApp(options)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=options.port,
        http=LinkedHttpProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    sockets = None if options.listen_fd is None else [socket.socket(fileno=options.listen_fd)]
    await server.serve(sockets=sockets)
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
