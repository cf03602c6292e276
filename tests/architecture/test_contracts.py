"""Each import contract is proven by breaking it: in a copy of the code, one forbidden import at a time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("portal", "tenants", "models_catalog", "quotas", "devstack", "benchmarks")

BREAKS = [
    ("tenants/queries.py", "import quotas.models", "Layers of the house"),
    ("portal/kit/broken.py", "import tenants.models", "Layers of the house"),
    ("models_catalog/broken.py", "import portal.inference.call", "Layers of the house"),
    ("portal/gateway/broken.py", "import portal.backoffice.middleware", "Layers of the house"),
    ("quotas/ledger/broken.py", "import quotas.settlement", "Layers of quotas"),
    ("quotas/models/broken.py", "import quotas.metering.facts", "Layers of quotas"),
    ("tenants/broken.py", "import channels", "Domain packages know no framework of the doors"),
    ("models_catalog/engines/feeds/broken.py", "import django", "Engines and their feeds know no Django"),
    ("quotas/ledger/broken.py", "import stripe", "Only payments know Stripe"),
    ("portal/broken.py", "import devstack.ports", "The product does not know what starts it on a laptop"),
    ("quotas/broken.py", "import benchmarks.meters", "The product does not know what starts it on a laptop"),
    ("benchmarks/broken.py", "import portal.inference.call", "Benchmarks see the doors from outside"),
    ("portal/gateway/http.py", "import django", "The gateway's hot path knows no ORM"),
]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_unbroken_copy_keeps_every_contract(copy: Path) -> None:
    result = _lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("path", "statement", "contract"), BREAKS)
def test_a_forbidden_import_breaks_its_contract(copy: Path, path: str, statement: str, contract: str) -> None:
    file = copy / path
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text((before or "") + f"\n{statement}\n", encoding="utf-8")
    try:
        result = _lint(copy)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="utf-8")
    assert result.returncode != 0
    assert f"{contract} BROKEN" in result.stdout
