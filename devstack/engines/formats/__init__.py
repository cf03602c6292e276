"""One module an endpoint: how a call's answer is put on the wire, whole and as a stream."""

from __future__ import annotations

from collections.abc import Mapping

from devstack.engines.dialects.base import Dialect
from devstack.engines.formats.base import Format
from devstack.engines.formats.chat import ChatFormat
from devstack.engines.formats.completions import CompletionsFormat
from devstack.engines.formats.embeddings import EmbeddingsFormat
from devstack.engines.formats.messages import MessagesFormat
from devstack.engines.formats.responses import ResponsesFormat


def make_formats(dialect: Dialect) -> Mapping[str, Format]:
    """The formats of an engine by the path that they are served at."""
    return {
        "/v1/chat/completions": ChatFormat(dialect),
        "/v1/completions": CompletionsFormat(dialect),
        "/v1/embeddings": EmbeddingsFormat(dialect),
        "/v1/responses": ResponsesFormat(dialect),
        "/v1/messages": MessagesFormat(dialect),
    }
