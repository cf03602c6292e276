"""What each endpoint's format has to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import msgspec

from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect, EngineError, Header, Json
from devstack.engines.prompts import Endpoint

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def data_event(chunk: Json) -> bytes:
    """An event without a name."""
    return b"data: %b\n\n" % _encode(chunk)


def named_event(body: Json) -> bytes:
    """An event that is named by its type."""
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), _encode(body))


class Stream(ABC):
    """The events of one streamed answer, asked for in their order; made anew for each call."""

    def __init__(self, dialect: Dialect, call: Call) -> None:
        self.dialect = dialect
        self.call = call

    @abstractmethod
    def opening(self) -> Iterator[bytes]:
        """What comes before the first token, or instead of it when there is none."""

    @abstractmethod
    def token(self, step: int) -> Iterator[tuple[bytes, int]]:
        """The events of one step, each with the number of tokens that it delivers."""

    @abstractmethod
    def ending(self) -> Iterator[bytes]:
        """What follows the last token, without the very last event."""

    @abstractmethod
    def last(self) -> bytes:
        """The event that says that all is over; empty when there is none."""

    def failure(self) -> bytes:
        """What is said when generation fails in the middle."""
        return data_event(self.dialect.error_event()) + DONE


class Format(ABC):
    """One endpoint of one engine."""

    endpoint: ClassVar[Endpoint]

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @abstractmethod
    def plain(self, call: Call) -> Json:
        """The whole body of a plain answer. Books the usage that it claims."""

    @abstractmethod
    def stream(self, call: Call) -> Stream:
        """A streamed answer."""

    def stream_head(self) -> list[Header]:
        """Headers of a streamed answer."""
        return self.dialect.stream_head()

    def error(self, error: EngineError) -> EngineError:
        """A refusal in this endpoint's words."""
        return error

    def failure_body(self) -> Json:
        """The body of a plain answer when generation has failed."""
        return self.dialect.error_event()
