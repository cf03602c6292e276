"""The checker's script as a module: it is no part of the product, so it is found by its path."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "verify_bundle.py"


def load_checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_bundle", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verify_bundle = load_checker()


def problems_of(path: Path, *public_keys: str) -> list[str]:
    """What the checker finds wrong; nothing when the bundle is valid."""
    keys = {verify_bundle.key_id(bytes.fromhex(key)): bytes.fromhex(key) for key in public_keys}
    try:
        bill, _ = verify_bundle.verify(path, keys)
    except verify_bundle.Refused as error:
        return str(error).splitlines()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [repr(error)]
    return list(bill.findings)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As a tenant would run it: alone, without packages of others or anything of ours."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={},
    )
