"""The organization's page of verifiable bills, and what anybody needs to check one."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from portal.console.tests.people import HTMX, Stage, open_stage
from portal.console.tests.test_billing import fixture_of
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.bundles import operations
from quotas.bundles.tests.checker import SCRIPT, problems_of, run_script
from quotas.bundles.tests.stage import ask, content_of, public_key, run
from quotas.models import BillBundle
from tenants.models import Role
from tenants.scope import role_scope
from tests.factories import make_tenant
from tests.factories_bundles import make_ready_bundle


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def bundles_of(stage: Stage) -> list[BillBundle]:
    with role_scope("operator"):
        return list(BillBundle.objects.filter(tenant_id=stage.tenant_id).order_by("id"))


def test_from_nothing_to_a_file_that_verifies(stage: Stage, tmp_path: Path) -> None:
    assert "bundles-empty" in stage.get("bundles").content.decode()
    answer = stage.post("bundle-make", data={"month": "2026-01"})
    assert answer.status_code == 302
    (bundle,) = bundles_of(stage)
    page = stage.get("bundles").content.decode()
    assert 'data-state="WAITING"' in page
    assert 'hx-trigger="every 1s"' in page
    assert stage.get("bundle-file", str(bundle)).status_code == 404
    assert run(bundle.id)
    page = stage.get("bundles", headers=HTMX).content.decode()
    assert 'data-state="READY"' in page
    assert "every 1s" not in page
    assert "<html" not in page
    download = stage.get("bundle-file", str(bundle))
    content = b"".join(download.streaming_content)
    assert int(download["Content-Length"]) == len(content)
    assert download["Content-Type"] == "application/zip"
    path = tmp_path / "bill.zip"
    path.write_bytes(content)
    assert problems_of(path, public_key()) == []


def test_no_more_than_some_within_a_day(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "MAX_A_DAY", 1)
    assert stage.post("bundle-make", data={"month": "2026-01"}).status_code == 302
    assert run(bundles_of(stage)[0].id)
    refused = stage.post("bundle-make", data={"month": "2026-02"})
    assert refused.status_code == 422
    assert "At most 1 bills can be asked for within 24 hours." in refused.content.decode()
    assert len(bundles_of(stage)) == 1


def test_days_a_month_that_is_not_over_and_nonsense(stage: Stage) -> None:
    days = {"from": "2026-02-03", "to": "2026-02-04"}
    assert stage.post("bundle-make", data=days).status_code == 302
    (bundle,) = bundles_of(stage)
    assert (f"{bundle.from_at:%Y-%m-%d}", f"{bundle.to_at:%Y-%m-%d}") == ("2026-02-03", "2026-02-05")
    # The same again is the same; another one has to wait.
    assert stage.post("bundle-make", data=days).status_code == 302
    refused = stage.post("bundle-make", data={"month": "2026-03"})
    assert refused.status_code == 422
    assert "bundle-error" in refused.content.decode()
    assert len(bundles_of(stage)) == 1
    assert run(bundle.id)
    this_month = stage.get("bundles").content.decode().split('<option value="')[2][:7]
    assert stage.post("bundle-make", data={"month": this_month}).status_code == 302
    assert run(bundles_of(stage)[-1].id)
    for data in (
        {},
        {"month": "2026-13"},
        {"month": "9999-12"},
        {"from": "2026-02-03"},
        {"from": "2026-02-04", "to": "2026-02-03"},
        {"from": "2020-01-01", "to": "2021-06-01"},
        {"from": "2999-01-01", "to": "2999-01-02"},
        {"from": "0001-01-01", "to": "0001-01-02"},
        {"from": "9999-12-31", "to": "9999-12-31"},
    ):
        assert stage.post("bundle-make", data=data).status_code == 422, data
    assert len(bundles_of(stage)) == 2


def test_only_roles_that_see_the_statement(stage: Stage) -> None:
    for role in Role:
        expected = 200 if role in (Role.OWNER, Role.ADMIN, Role.BILLING) else 403
        assert stage.as_role(role).get("bundles").status_code == expected, role
    assert stage.as_role(Role.VIEWER).post("bundle-make", data={"month": "2026-01"}).status_code == 403


def test_those_of_others_are_not_there(stage: Stage) -> None:
    theirs = make_ready_bundle(make_tenant())
    for bundle_id in (theirs, uuid7()):
        assert stage.get("bundle-file", public_id(PREFIXES["bundle"], bundle_id)).status_code == 404


def test_one_that_failed_says_why(stage: Stage) -> None:
    bundle_id = ask(fixture_of(stage))
    assert not run(bundle_id, secrets=None)
    page = stage.get("bundles").content.decode()
    assert 'data-state="FAILED"' in page
    assert "no key to sign with" in page


def test_anybody_gets_the_keys_and_the_script(database: None, tmp_path: Path) -> None:
    assert settings.SECRET_STORE is not None
    nobody = Client()
    answer = nobody.get("/.well-known/sluice-bundle-keys.json")
    assert [key["public_key"] for key in answer.json()["keys"]] == [
        key.hex for key in settings.SECRET_STORE.public_keys()
    ]
    assert b"private" not in answer.content
    assert nobody.get("/verify_bundle.py").content == SCRIPT.read_bytes()
    # What is published is what the script reads.
    (tmp_path / "keys.json").write_bytes(answer.content)
    tenant = make_tenant()
    bundle_id = make_ready_bundle(tenant)
    (tmp_path / "bill.zip").write_bytes(content_of(tenant, bundle_id))
    told = run_script(str(tmp_path / "bill.zip"), "--keys", str(tmp_path / "keys.json"))
    assert told.returncode == 0, told.stdout
