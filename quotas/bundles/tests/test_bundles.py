"""Bundles are what the database says, verify offline, and are made once whatever happens."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from quotas.bundles.tests.checker import problems_of, run_script
from quotas.bundles.tests.stage import ISSUER, make_bundle, public_key, row_of
from quotas.models import BundleState
from quotas.tests.doors import (
    Connection,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle_one,
    sweep_row,
    usage_of,
)
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    settlement_row,
    void_row,
)


def use(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    """One call of each kind: whole, broken off, voided, under way, swept, swept and then set right."""
    for prompt, completion in ((10, 5), (77, 0), (99, 99)):
        row = admitted(dataplane, admission_row(tenant, model))
        settle_one(dataplane, settlement_row(row, prompt_tokens=prompt, completion_tokens=completion))
    settle_one(dataplane, void_row(admitted(dataplane, admission_row(tenant, model))))
    admitted(dataplane, admission_row(tenant, model))
    # More than was held: the rest is our expense.
    row = admitted(dataplane, admission_row(tenant, model))
    settle_one(dataplane, settlement_row(row, prompt_tokens=1_000, completion_tokens=5_000))
    for is_settled in (False, True):
        row = admitted(dataplane, admission_row(tenant, model))
        checkpoint(dataplane, checkpoint_row(row, 20, 7))
        end_lease(row)
        settle_one(dataplane, sweep_row(row))
        if is_settled:
            settle_one(dataplane, settlement_row(row, prompt_tokens=20, completion_tokens=30))
            assert len(usage_of(row)) == 2


def test_a_bundle_verifies_and_says_what_the_database_says(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, tmp_path: Path
) -> None:
    use(tenant, model, dataplane)
    path = make_bundle(tenant, tmp_path)
    assert problems_of(path, public_key()) == []
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        usage = archive.read("usage.csv").decode().splitlines()
        corrections = archive.read("corrections.csv").decode().splitlines()
    assert (manifest["totals"]["lines"], manifest["totals"]["calls"]) == (8, 6)
    assert len(usage) == 9
    assert len(corrections) == 3
    assert manifest["organization"]["id"] == tenant.public_id
    assert manifest["totals"]["overrun_nanos"] > 0
    row = row_of(_id(path))
    assert row.state == BundleState.READY
    assert row.charged_nanos == manifest["totals"]["charged_nanos"] > 0
    assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert row.lines_done == row.lines_expected == 8


def test_the_script_alone_says_valid(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, tmp_path: Path
) -> None:
    use(tenant, model, dataplane)
    path = make_bundle(tenant, tmp_path)
    told = run_script(str(path), "--key", public_key())
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1] == "VALID"
    assert ISSUER in told.stdout
    wrong = run_script(str(path), "--key", "11" * 32)
    assert wrong.returncode == 1
    assert "you trust" in wrong.stdout
    assert run_script(str(path)).returncode == 2


def _id(path: Path):
    from uuid import UUID

    return UUID(path.stem)
