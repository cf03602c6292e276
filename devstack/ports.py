"""Ports on the loopback interface for the services that nobody needs to know by heart.

They stay below 32768: above it the kernel hands out ports to outgoing connections, and a port that was free
a moment ago may be taken when the server binds it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from itertools import chain

HOST = "127.0.0.1"
_FIRST, _END = 28_000, 32_768
# An instance takes two ports of its own, so there are twice as many for what it starts.
_PORTS_PER_INSTANCE = 4


def first_choice(seed: int, slot: int) -> int:
    """A port that depends only on `seed` (say, the instance's own port) and the service's slot (0 to 4)."""
    return _FIRST + (seed * _PORTS_PER_INSTANCE) % (_END - _FIRST - _PORTS_PER_INSTANCE) + slot


def choose(preferred: int, *, avoid: Collection[int] = ()) -> int:
    """The preferred port if it is free, else the next free one (going round); OSError when all are taken."""
    for port in chain(range(preferred, _END), range(_FIRST, min(preferred, _END))):
        if port not in avoid and why_not_free(port) is None:
            return port
    raise OSError(errno.EADDRINUSE, f"no free port between {_FIRST} and {_END - 1}")


def why_not_free(port: int) -> str | None:
    """None if a server could listen on this port now, else the reason in words."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an ended server that linger in TIME-WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except PermissionError:
            return "this user may not listen on it"
        except OverflowError:
            return "ports go from 1 to 65535"
        except OSError as error:
            return "another program listens on it" if error.errno == errno.EADDRINUSE else str(error)
    return None
