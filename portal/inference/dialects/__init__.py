"""The endpoints of /v1, one module each."""

from collections.abc import Mapping

from models_catalog.engines import PATHS
from portal.inference.dialects.base import Dialect, ModelRequest
from portal.inference.dialects.chat import CHAT
from portal.inference.dialects.completions import COMPLETIONS
from portal.inference.dialects.embeddings import EMBEDDINGS
from portal.inference.dialects.messages import MESSAGES
from portal.inference.dialects.reading import decode_body, read_model
from portal.inference.dialects.responses import RESPONSES

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "DIALECTS",
    "EMBEDDINGS",
    "MESSAGES",
    "RESPONSES",
    "Dialect",
    "ModelRequest",
    "decode_body",
    "read_model",
]

# By the paths under which clients find them.
_ALL: tuple[Dialect, ...] = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)
DIALECTS: Mapping[str, Dialect] = {PATHS[dialect.endpoint]: dialect for dialect in _ALL}
