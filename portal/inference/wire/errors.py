"""What can go wrong between a backend and us."""


class WireError(Exception):
    """The exchange failed; nothing more of its answer comes."""


class Unreachable(WireError):
    """There is no connection to the backend."""


class BrokenOff(WireError):
    """The connection ended before the answer did."""


class StaleConnection(WireError):
    """A connection that had served before was closed without a byte of an answer."""


class Unreadable(WireError):
    """What the backend sent is not HTTP, or has a head without end."""


class TooLarge(WireError):
    """The body has more bytes than the caller wants."""
