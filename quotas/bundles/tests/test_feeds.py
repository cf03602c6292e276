"""What the backends' own records changed or confirmed is in the bundle, and verifies."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from portal.kit.ids import PREFIXES, public_id
from quotas.admission import AdmissionRow
from quotas.bundles.tests.checker import problems_of
from quotas.bundles.tests.stage import make_bundle, public_key
from quotas.models import AttemptOutcome
from quotas.reconciliation.tests.said import Said, make_feed, post, served, take
from quotas.tests.doors import Connection, admitted, end_lease, settle_one, sweep_row
from tests.factories import TenantFixture, admission_row, enable, make_model, make_tenant


def read(path: Path, name: str) -> list[dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        head, *rows = archive.read(name).decode().splitlines()
    return [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]


def of(rows: list[dict[str, str]], row: AdmissionRow) -> list[dict[str, str]]:
    spelled = public_id(PREFIXES["request"], row.request_id)
    return [line for line in rows if line["request"] == spelled]


def test_confirmed_corrected_lost_and_broken_off(dataplane: Connection, tmp_path: Path) -> None:
    model, tenant = make_model(), make_tenant(granted="10.00")
    enable(tenant, model)
    feed_id = make_feed(model.backend_id)
    # Feeds of backends that served others only are none of the organization's business.
    make_feed(make_model().backend_id)
    agrees = served(dataplane, tenant, model, 10, 20)
    less = served(dataplane, tenant, model, 10, 50)
    # More than was held: the rest is ours.
    more = served(dataplane, tenant, model, 10, 5)
    broken = served(dataplane, tenant, model, 10, 5, outcome=AttemptOutcome.CLIENT_GONE)
    alone = served(dataplane, tenant, model, 7, 7)
    lost = admitted(dataplane, admission_row(tenant, model))
    end_lease(lost)
    settle_one(dataplane, sweep_row(lost))
    take(
        feed_id,
        [
            Said(agrees.attempt_id, 10, 20),
            Said(less.attempt_id, 10, 30),
            Said(more.attempt_id, 90, 90),
            Said(broken.attempt_id, 10, 60, finish="ABORT"),
            Said(lost.attempt_id, 40, 60),
        ],
    )
    post()
    path = make_bundle(tenant, tmp_path)
    assert problems_of(path, public_key()) == []
    usage, corrections = read(path, "usage.csv"), read(path, "corrections.csv")
    sureness = [of(usage, row)[0]["provenance"] for row in (agrees, less, more, lost, alone)]
    assert sureness == ["CONFIRMED", "CORRECTED", "CORRECTED", "CORRECTED", "MEASURED"]
    assert [(line["revision"], line["cause"]) for line in of(corrections, less)] == [
        ("1", ""),
        ("2", "COUNTS_DIFFER"),
    ]
    # Its first revision is the feed's.
    assert [(line["revision"], line["cause"]) for line in of(corrections, lost)] == [("1", "SETTLEMENT_LOST")]
    assert of(usage, lost)[0]["charged_nanos"] == str(40 * 1_000 + 60 * 2_000)
    assert of(corrections, broken) == of(corrections, alone) == []
    with zipfile.ZipFile(path) as archive:
        certificate = json.loads(archive.read("manifest.json"))["certificate"]
    assert (certificate["attempts"], certificate["matched_attempts"]) == (4, 1)
    assert [one["source"] for one in certificate["sources"]] == [public_id(PREFIXES["feed"], feed_id)]


def test_a_bundle_says_what_was_known_when_it_was_made(
    dataplane: Connection, tenant: TenantFixture, tmp_path: Path
) -> None:
    """Before the feed was heard one thing, after it another, and both verify."""
    model = make_model()
    enable(tenant, model)
    feed_id = make_feed(model.backend_id)
    row = served(dataplane, tenant, model, 10, 50)
    before = make_bundle(tenant, tmp_path)
    take(feed_id, [Said(row.attempt_id, 10, 30)])
    post()
    after = make_bundle(tenant, tmp_path)
    for path, charged in ((before, 110_000), (after, 70_000)):
        assert problems_of(path, public_key()) == []
        assert of(read(path, "usage.csv"), row)[0]["charged_nanos"] == str(charged)
