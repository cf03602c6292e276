"""`manage.py apply_catalog`: what it prints, its exit code, and the documented example."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from models_catalog.tests.catalog_files import fresh_name, revision, whole_file

pytestmark = pytest.mark.usefixtures("database")

EXAMPLE = Path(settings.BASE_DIR) / "docs" / "examples" / "catalog.yaml"
GUIDE = Path(settings.BASE_DIR) / "docs" / "catalog-file.md"


def run(path: Path, *options: str) -> str:
    out = io.StringIO()
    call_command("apply_catalog", str(path), *options, stdout=out)
    return out.getvalue()


def test_it_prints_each_change_and_then_that_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(whole_file(fresh_name()), encoding="utf-8")
    dry = run(path, "--dry-run").splitlines()
    assert [line[0] for line in dry[:-1]] == ["+"] * 5
    assert dry[-1] == "Dry run: nothing was changed."
    assert len(run(path).splitlines()) == 5
    assert run(path) == "Nothing to change.\n"
    assert run(path, "--dry-run") == "Nothing to change.\n"


def test_the_documented_example_applies() -> None:
    before = revision()
    assert run(EXAMPLE, "--dry-run").splitlines()[:4] == [
        "+ pool berlin-h100",
        "+ backend berlin-1",
        "+ model acme/large",
        "+ deployment acme/large on berlin-1",
    ]
    assert revision() == before


def test_the_catalog_of_make_run_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVSTACK_MODEL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DEVSTACK_MODEL_KEY", "key-0123456789")
    monkeypatch.setenv("DEVSTACK_SIMULATED_URL", "http://127.0.0.1:10")
    monkeypatch.setenv("DEVSTACK_SIMULATED_KEY", "key-9876543210")
    monkeypatch.setenv("DEVSTACK_SIMULATED_FEED", "/feeds/simulated-sglang")
    printed = run(Path(settings.BASE_DIR) / "devstack" / "catalog.yaml", "--dry-run")
    assert "+ backend laptop-llamacpp" in printed
    assert "+ model sluice/simulated" in printed
    assert "key-0123456789" not in printed
    assert "key-9876543210" not in printed


def test_the_guide_shows_the_example_as_it_is() -> None:
    assert f"```yaml\n{EXAMPLE.read_text(encoding='utf-8')}```" in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"pools:\n- \xff\n", ":2: not valid UTF-8"),
        (b"pools: [{}]\n", ":1: pools[0].code: is required"),
        (b"\xe4\xbd\xa0" * 2**19, ":1: a catalog file has at most 1048576 bytes"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        run(path)
    assert f"{path}{what}" in str(caught.value)
    assert "nothing was changed" in str(caught.value)


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run(tmp_path / "absent.yaml")


def test_the_exit_code_of_a_wrong_file_is_1(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("pools: 5\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "manage.py", "apply_catalog", str(path)],
        cwd=settings.BASE_DIR,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"{path}:1: pools: must be a list" in done.stderr
    assert "Traceback" not in done.stderr
