"""One module a flavour: how an engine reads a request and what it puts on the wire."""

from __future__ import annotations

from devstack.engines.dialects.base import Dialect, EngineError
from devstack.engines.dialects.generic import GenericDialect
from devstack.engines.dialects.llamacpp import LlamacppDialect
from devstack.engines.dialects.sglang import SglangDialect
from devstack.engines.dialects.vllm import VllmDialect
from devstack.engines.options import EngineOptions, Flavour

_DIALECTS: dict[Flavour, type[Dialect]] = {
    "llamacpp": LlamacppDialect,
    "vllm": VllmDialect,
    "sglang": SglangDialect,
    "generic": GenericDialect,
}


def make_dialect(options: EngineOptions) -> Dialect:
    """The dialect of the chosen flavour."""
    return _DIALECTS[options.flavour](options)


__all__ = ["Dialect", "EngineError", "make_dialect"]
