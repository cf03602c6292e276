"""An operator sets a call right of which two witnesses disagree, and its organization reads why."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from portal.backoffice.tests.people import make_operator
from portal.kit.ids import PREFIXES, public_id
from quotas.models import Discrepancy
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import enable, make_model
from tests.factories_reconciliation import make_feed, make_mismatch
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import go, hook, nanos
from tests.journeys.operating import RELOADED_MS, fill, open_form, send, sign_in
from tests.journeys.stages import make_customer
from tests.journeys.visits import LANGUAGES, Visits
from tests.people import Person

# 10 and 20 tokens were billed, 12 and 25 the record says; 13 and 23 somebody decides. 1,000 and 2,000 each.
DECIDED_NANOS = -(3 * 1_000 + 3 * 2_000)


def _make_disagreement() -> tuple[str, str, str, str]:
    """The session of an owner, and the public ids of the organization, of a call and of its discrepancy."""
    model = make_model()
    tenant, person, session = make_customer(None)
    assert isinstance(person, Person)
    enable(tenant, model)
    row, discrepancy_id = make_mismatch(tenant, model, make_feed(model.backend_id))
    request = public_id(PREFIXES["request"], row.request_id)
    return session, tenant.public_id, request, public_id(PREFIXES["discrepancy"], discrepancy_id)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_operator_corrects_a_call_and_its_organization_reads_why(
    language: str, visits: Visits, backstage: Backstage, artifacts: Path
) -> None:
    session, organization, request, discrepancy = backstage(_make_disagreement)
    album = Album(artifacts / f"journey-reconciliation-{language}")
    buyer = visits.open(session=session, language=language)
    go(buyer, "console:request", organization, request)
    # A record that says something else confirms nothing.
    expect(hook(buyer, "receipt-provenance")).to_have_attribute("data-provenance", "MEASURED")

    page = visits.open(language=language)
    sign_in(page, backstage(make_operator))
    _correct(page, discrepancy, organization, album)
    _see_what_the_organization_sees(buyer, organization, request, album)
    assert backstage(_causes_of, discrepancy) == ["BY_HAND"]
    actions = backstage(_actions_about, discrepancy)
    assert actions == ["correction.by_hand"]


def _correct(page: Page, discrepancy: str, organization: str, album: Album) -> None:
    """From the overview's figure, through the queue, to the evidence."""
    go(page, "backoffice:reconciliation")
    album.take(page, "overview")
    hook(page, "figure-discrepancies").click()
    row = hook(page, "discrepancy-row", discrepancy=discrepancy)
    expect(row).to_have_count(1)
    album.take(page, "queue")
    row.locator("th a").click()
    expect(hook(page, "discrepancy-state")).to_have_attribute("data-state", "OPEN")
    expect(hook(page, "evidence-records")).to_be_visible()
    album.take(page, "evidence")
    dialog = open_form(page, "discrepancy-correct")
    expect(dialog.locator('[name="completion_tokens"]')).to_have_value("25")
    fill(dialog, prompt_tokens="13", completion_tokens="23", reason="Counted again with the tokenizer")
    album.take(page, "correct", full_page=False)
    send(dialog, "correct-confirm")
    expect(hook(page, "discrepancy-state")).to_have_attribute("data-state", "CORRECTED", timeout=RELOADED_MS)
    expect(hook(page, "discrepancy-decided")).to_contain_text("Counted again with the tokenizer")
    album.take(page, "corrected")


def _see_what_the_organization_sees(buyer: Page, organization: str, request: str, album: Album) -> None:
    """The correction is a line of its own with its reason; the call says CORRECTED wherever it stands."""
    go(buyer, "console:statement", organization)
    line = hook(buyer, "statement-line", cause="BY_HAND")
    expect(line).to_have_count(1)
    assert nanos(hook(line, "statement-amount")) == DECIDED_NANOS
    expect(hook(line, "statement-cause")).not_to_be_empty()
    album.take(buyer, "statement")
    line.locator("a").click()
    expect(hook(buyer, "receipt-provenance")).to_have_attribute("data-provenance", "CORRECTED")
    expect(hook(buyer, "receipt-revision", cause="BY_HAND")).to_have_count(1)
    # What was said in the back office stays there.
    expect(buyer.locator("body")).not_to_contain_text("Counted again with the tokenizer")
    album.take(buyer, "receipt")
    go(buyer, "console:usage", organization)
    row = hook(buyer, "usage-row", request=request)
    expect(hook(row, "usage-provenance")).to_have_attribute("data-provenance", "CORRECTED")
    album.take(buyer, "usage")


def _causes_of(discrepancy: str) -> list[str]:
    with role_scope("operator"):
        found = next(one for one in Discrepancy.objects.all() if str(one) == discrepancy)
    return [row["cause"] for row in rows_of("quotas_correction", request_id=found.request_id)]


def _actions_about(discrepancy: str) -> list[str]:
    return [row["action"] for row in rows_of("tenants_auditevent", target=discrepancy)]
