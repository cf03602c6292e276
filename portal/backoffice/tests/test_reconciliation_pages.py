"""Operators' pages of reconciliation: the overview, the queue, suspense and feeds."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from uuid import UUID

import pytest
from django.test import Client

from models_catalog.models import ServingBackend, UsageFeed
from portal.backoffice.reconciliation.words import WINDOW_CAUSES
from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.ids import PREFIXES, public_id
from quotas.models import DiscrepancyState, FeedQuarantine, QuarantineState, SuspenseItem, SuspenseState
from quotas.reconciliation.windows.metered import What
from tenants.models import AuditEvent
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant
from tests.factories_reconciliation import (
    Reconciled,
    make_counted,
    make_every_reconciliation,
    make_feed,
    make_line,
    make_mismatch,
    make_waiting,
)

pytestmark = pytest.mark.usefixtures("database")
HERE = "/operator/reconciliation/"


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@dataclass(frozen=True, slots=True)
class Stage:
    tenant: TenantFixture
    model: ModelFixture
    made: Reconciled
    backend_code: str


@pytest.fixture(scope="module")
def stage(database: None) -> Stage:
    tenant, model = make_tenant(), make_model()
    enable(tenant, model)
    made = make_every_reconciliation(tenant, model)
    with role_scope("operator"):
        code = ServingBackend.objects.get(id=model.backend_id).code
    return Stage(tenant, model, made, code)


def spelled(kind: str, row_id: UUID) -> str:
    return public_id(PREFIXES[kind], row_id)


def text_of(client: Client, address: str, **query: str) -> str:
    answer = client.get(HERE + address, query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def state_of(discrepancy_id: UUID) -> str:
    (row,) = rows_of("quotas_discrepancy", id=discrepancy_id)
    return str(row["state"])


def audited(action: str, target: str) -> list[str]:
    with role_scope("operator"):
        return list(AuditEvent.objects.filter(action=action, target=target).values_list("reason", flat=True))


def test_the_overview_says_what_waits(client: Client, stage: Stage) -> None:
    text = text_of(client, "")
    for part in ("figure-discrepancies", "figure-suspense", "figure-quarantine", "complete-to"):
        assert f'data-testid="{part}"' in text
    assert f'data-backend="{stage.backend_code}"' in text
    assert 'aria-current="page">Reconciliation</a>' in text
    assert "Show as a table" in text
    assert text_of(client, "", show="share", days="30")
    # What cannot be read counts as not given.
    assert text_of(client, "", show="x", days="400")


def test_a_backends_day_shows_its_windows(client: Client, stage: Stage) -> None:
    backend = spelled("backend", stage.model.backend_id)
    text = text_of(client, f"backends/{backend}/")
    assert 'data-testid="window-row"' in text
    assert "data-unexplained" in text
    assert 'data-testid="windows-empty"' in text_of(client, f"backends/{backend}/", day="2020-02-02")
    assert client.get(f"{HERE}backends/{spelled('backend', stage.tenant.id)}/").status_code == 404


def test_the_queue_is_filtered_by_its_address(client: Client, stage: Stage) -> None:
    made, shown = stage.made, {"backend": stage.backend_code}
    ids = [spelled("discrepancy", one) for one in (made.discrepancy_id, made.waiting_id, made.corrected_id)]

    def found(**query: str) -> list[bool]:
        text = text_of(client, "discrepancies/", **shown, **query)
        return [f'data-discrepancy="{one}"' in text for one in ids]

    assert found() == [True, True, False]
    assert found(state="all") == [True, True, True]
    assert found(state="WAITING") == [False, True, False]
    assert found(state="CORRECTED", kind="MISMATCHED") == [False, False, True]
    assert found(state="all", kind="SURPLUS") == [False] * 3
    assert found(state="all", organization=stage.tenant.public_id) == [True] * 3
    assert found(state="all", day="2020-02-02") == [False] * 3
    assert found(state="all", late="1") == [False] * 3
    assert found(state="all", before=ids[1]) == [False, False, True]
    assert 'data-testid="discrepancies-empty"' in text_of(client, "discrepancies/", backend="nowhere")


def test_a_page_of_the_queue_leads_to_the_next(client: Client, stage: Stage, monkeypatch) -> None:
    monkeypatch.setattr("portal.backoffice.reconciliation.queue.PAGE_ROWS", 1)
    text = text_of(client, "discrepancies/", backend=stage.backend_code)
    assert text.count('data-testid="discrepancy-row"') == 1
    assert f"before={spelled('discrepancy', stage.made.discrepancy_id)}" in text


def test_the_file_lists_the_choice_and_runs_no_formula(client: Client, stage: Stage) -> None:
    answer = client.get(
        f"{HERE}discrepancies/discrepancies.csv", {"state": "all", "backend": stage.backend_code}
    )
    assert answer["Content-Type"].startswith("text/csv")
    text = answer.getvalue().decode().removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["id"] for row in rows} == {
        spelled("discrepancy", one)
        for one in (stage.made.discrepancy_id, stage.made.waiting_id, stage.made.corrected_id)
    }
    corrected = next(row for row in rows if row["state"] == "CORRECTED")
    assert (corrected["gateway_prompt_tokens"], corrected["feed_prompt_tokens"]) == ("10", "12")
    assert corrected["change_of_charge"] == "0.000012"


def test_both_witnesses_stand_side_by_side(client: Client, stage: Stage) -> None:
    text = text_of(client, f"discrepancies/{spelled('discrepancy', stage.made.corrected_id)}/")
    assert 'data-testid="both-witnesses"' in text
    assert 'data-testid="evidence-records"' in text
    assert 'data-state="CORRECTED"' in text
    assert text.count("Counts differ") >= 2
    assert 'data-testid="discrepancy-accept"' not in text
    assert stage.backend_code in text
    assert client.get(f"{HERE}discrepancies/{spelled('discrepancy', stage.tenant.id)}/").status_code == 404


@pytest.mark.parametrize(
    ("page", "action", "state"),
    [("accept", "correction.accept", "ACCEPTED"), ("waive", "correction.waive", "WAIVED")],
)
def test_a_decision_needs_a_reason_and_is_written_down(
    client: Client, stage: Stage, page: str, action: str, state: str
) -> None:
    _, discrepancy_id = make_mismatch(stage.tenant, stage.model, stage.made.feed_id)
    address = f"{HERE}discrepancies/{spelled('discrepancy', discrepancy_id)}/{page}"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": "x"}).status_code == 422
    assert state_of(discrepancy_id) == DiscrepancyState.OPEN
    assert client.post(address, {"reason": "looked at both logs"}).status_code == 302
    assert state_of(discrepancy_id) == state
    assert audited(action, spelled("discrepancy", discrepancy_id)) == ["looked at both logs"]
    again = client.post(address, {"reason": "and once more"})
    assert again.status_code == 422
    assert "decided about it already" in again.content.decode()


def test_what_waits_is_approved_and_posted(client: Client, stage: Stage) -> None:
    row, discrepancy_id = make_waiting(stage.tenant, stage.model, stage.made.feed_id)
    address = f"{HERE}discrepancies/{spelled('discrepancy', discrepancy_id)}/approve"
    assert "changes by" in client.get(address).content.decode()
    assert client.post(address, {"reason": "the record is right"}).status_code == 302
    assert state_of(discrepancy_id) == DiscrepancyState.CORRECTED
    assert [usage["revision"] for usage in rows_of("quotas_usagerecord", request_id=row.request_id)] == [1, 2]


def test_a_correction_by_hand_is_bounded_by_what_was_admitted(client: Client, stage: Stage) -> None:
    row, discrepancy_id = make_mismatch(stage.tenant, stage.model, stage.made.feed_id)
    address = f"{HERE}discrepancies/{spelled('discrepancy', discrepancy_id)}/correct"
    # It begins with what the record says.
    assert 'name="completion_tokens" value="25"' in client.get(address).content.decode()
    counts = {
        "prompt_tokens": "11",
        "cached_tokens": "0",
        "completion_tokens": "5000",
        "reasoning_tokens": "0",
    }
    refused = client.post(address, {**counts, "reason": "counted again"})
    assert refused.status_code == 422
    assert "At most 100" in refused.content.decode()
    parts = client.post(
        address, {**counts, "completion_tokens": "21", "cached_tokens": "12", "reason": "again"}
    )
    assert parts.status_code == 422
    done = client.post(address, {**counts, "completion_tokens": "21", "reason": "counted again"})
    assert done.status_code == 302
    usage = rows_of("quotas_usagerecord", request_id=row.request_id)
    assert (usage[-1]["prompt_tokens"], usage[-1]["completion_tokens"]) == (11, 21)
    (correction,) = rows_of("quotas_correction", request_id=row.request_id)
    assert correction["cause"] == "BY_HAND"


def test_many_are_decided_at_once_and_each_is_told_of(client: Client, stage: Stage) -> None:
    open_ids = [make_mismatch(stage.tenant, stage.model, stage.made.feed_id)[1] for _ in range(2)]
    ids = [spelled("discrepancy", one) for one in (*open_ids, stage.made.corrected_id)]
    address = f"{HERE}discrepancies/decide"
    asked = client.post(address, {"action": "ACCEPT", "id": ids, "backend": stage.backend_code})
    assert asked.status_code == 200
    assert asked.content.decode().count('name="id"') == 3
    assert client.post(address, {"action": "ACCEPT", "id": ids, "is_asked": "1"}).status_code == 422
    told = client.post(address, {"action": "ACCEPT", "id": ids, "is_asked": "1", "reason": "a known fault"})
    text = told.content.decode()
    assert text.count('data-testid="bulk-row"') == 3
    assert text.count("data-undone") == 1
    assert [state_of(one) for one in open_ids] == [DiscrepancyState.ACCEPTED] * 2
    for unknown in ({}, {"action": "DELETE"}, {"action": ""}):
        assert client.post(address, {**unknown, "id": ids, "is_asked": "1"}).status_code == 400
    nothing = client.post(address, {"action": "ACCEPT", "id": ["nonsense"]})
    assert 'data-testid="bulk-nothing"' in nothing.content.decode()


@pytest.mark.parametrize(("page", "state"), [("explain", "EXPLAINED"), ("write-off", "WRITTEN_OFF")])
def test_suspense_is_decided_with_a_reason(client: Client, stage: Stage, page: str, state: str) -> None:
    item_id = make_counted(make_model().backend_id)
    address = f"{HERE}suspense/{spelled('suspense', item_id)}/{page}"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": ""}).status_code == 422
    assert client.post(address, {"reason": "a load test"}).status_code == 302
    with role_scope("operator"):
        found = SuspenseItem.objects.get(id=item_id)
    assert (found.state, found.reason) == (state, "a load test")
    assert client.post(address, {"reason": "a load test"}).status_code == 422


def test_suspense_is_filtered(client: Client, stage: Stage) -> None:
    item, counted = (spelled("suspense", one) for one in (stage.made.suspense_id, stage.made.counted_id))
    text = text_of(client, "suspense/", backend=stage.backend_code)
    assert item in text
    assert counted in text
    assert "chatcmpl" in text
    assert item not in text_of(client, "suspense/", backend=stage.backend_code, kind="COUNTER")
    assert item not in text_of(
        client, "suspense/", backend=stage.backend_code, state=SuspenseState.WRITTEN_OFF
    )
    assert 'data-testid="suspense-empty"' in text_of(client, "suspense/", backend="nowhere")


def test_a_feed_shows_its_files_and_lines(client: Client, stage: Stage) -> None:
    feed, line = spelled("feed", stage.made.feed_id), spelled("feed_line", stage.made.line_id)
    assert f'data-feed="{feed}"' in text_of(client, "feeds/")
    text = text_of(client, f"feeds/{feed}/")
    for part in ("requests.log", line, "MISSING_FIELD", "byte 2048, 118 long", "/ndjson"):
        assert part in text
    assert line not in text_of(client, f"feeds/{feed}/", state="DISMISSED")
    assert 'data-testid="lines-empty"' in text_of(client, f"feeds/{feed}/", state="READ")
    assert client.get(f"{HERE}feeds/{spelled('feed', stage.tenant.id)}/").status_code == 404


def test_a_line_is_dismissed_and_a_pushed_one_has_nothing_to_read_again(client: Client, stage: Stage) -> None:
    line_id = make_line(stage.made.feed_id, in_file=False)
    address = f"{HERE}lines/{spelled('feed_line', line_id)}/"
    refused = client.post(f"{address}retry", {"reason": "the parser knows it now"})
    assert refused.status_code == 422
    assert "nothing to read again" in refused.content.decode()
    assert client.post(f"{address}dismiss", {"reason": "a debug line"}).status_code == 302
    with role_scope("operator"):
        assert FeedQuarantine.objects.get(id=line_id).state == QuarantineState.DISMISSED
    assert client.post(f"{address}dismiss", {"reason": "a debug line"}).status_code == 422


def test_a_feed_is_switched_off_and_on(client: Client, stage: Stage) -> None:
    feed_id = make_feed(stage.model.backend_id)
    address = f"{HERE}feeds/{spelled('feed', feed_id)}/switch"
    for is_enabled in (False, True):
        assert client.get(address).status_code == 200
        assert client.post(address, {"reason": "the machine moves"}).status_code == 302
        with role_scope("operator"):
            assert UsageFeed.objects.get(id=feed_id).is_enabled == is_enabled
    assert len(audited("feed.enable", spelled("feed", feed_id))) == 1


def test_a_credential_is_shown_once(client: Client, stage: Stage) -> None:
    feed_id = make_feed(stage.model.backend_id)
    address = f"{HERE}feeds/{spelled('feed', feed_id)}/credential"
    assert client.post(address, {"reason": "?"}).status_code == 422
    answer = client.post(address, {"reason": "the first one"})
    assert answer["Cache-Control"] == "no-store, private"
    assert 'data-testid="feed-secret"' in answer.content.decode()
    with role_scope("operator"):
        stored = UsageFeed.objects.get(id=feed_id).credential_encrypted
    assert stored
    assert stored not in answer.content.decode()
    assert 'data-testid="feed-secret"' not in text_of(client, f"feeds/{spelled('feed', feed_id)}/")


def test_all_of_it_is_for_operators_only(stage: Stage) -> None:
    from tests.people import make_owner, signed_in

    _, owner = make_owner()
    client = signed_in(owner)
    for address in ("", "discrepancies/", "suspense/", "feeds/"):
        assert client.get(HERE + address).status_code in (302, 403, 404)


def test_every_cause_of_a_window_has_a_word() -> None:
    assert set(WINDOW_CAUSES) == set(What) - {What.MATCHED, What.NOTHING}
