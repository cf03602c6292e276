"""The middleware that a centre loads into vLLM, loaded here as vLLM loads it: from its file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FILE = Path(__file__).resolve().parents[4] / "deploy" / "vllm" / "usage_log.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("usage_log", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
