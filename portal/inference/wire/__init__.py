"""HTTP/1.1 towards the serving backends: one connection an exchange, bodies handed on as they arrive.

Written for one use: a POST of a few kilobytes whose answer is read in whole, or passed on chunk by chunk
without a task being woken for each.
"""

from portal.inference.wire.errors import (
    BrokenOff,
    StaleConnection,
    TooLarge,
    Unreachable,
    Unreadable,
    WireError,
)
from portal.inference.wire.pool import WirePool
from portal.inference.wire.response import Receiver, Response

__all__ = [
    "BrokenOff",
    "Receiver",
    "Response",
    "StaleConnection",
    "TooLarge",
    "Unreachable",
    "Unreadable",
    "WireError",
    "WirePool",
]
