"""A feed that is written as lines: how its files are named, and the line of each record."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import ClassVar

from devstack.engines.feeds.told import FeedFormat, Told

__all__ = ["LineFormat", "quoted"]

quoted = encode_basestring_ascii
"""A JSON string, as Python's own encoder writes it."""


class LineFormat(ABC):
    """One format. `skew_s` is added to every time that it tells.

    `header` stands first in every new file, empty where there is none. `hourly` says that the name changes
    with the hour: of the name itself, or of the file that is put aside under the past hour's name.
    """

    name: ClassVar[FeedFormat]
    header: ClassVar[bytes] = b""

    def __init__(self, *, skew_s: float = 0.0) -> None:
        self.skew_s = skew_s

    @abstractmethod
    def line(self, told: Told) -> bytes:
        """The line of a finished call, without its end."""

    def opening(self, wire_ids: Sequence[str], told: Told) -> bytes | None:
        """The line that is written when a call begins, None where there is none. Of `told` only what is known
        by then is looked at."""
        return None

    @abstractmethod
    def file_name(self, unix: float) -> str:
        """The file that is written at that time."""

    def aside_name(self, unix: float) -> str | None:
        """The name under which a file of that hour is put aside when the hour is over; None: it never is."""
        return None

    def local_time(self, unix: float) -> time.struct_time:
        """Local time, as the engine sees it."""
        return time.localtime(unix + self.skew_s)
