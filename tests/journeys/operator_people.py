"""The second half of an operator's day: a tenant in trouble, credit that takes two, a tier and a limit."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from playwright.sync_api import expect

from portal.backoffice.tests.people import make_operator, next_totp_code
from portal.kit.clock import utc_now
from quotas.models import LimitKind
from tests.database import rows_of
from tests.factories import unique_name
from tests.journeys import hooks
from tests.journeys.hooks import assert_speaks, go, hook, nanos
from tests.journeys.operating import (
    age_proof,
    fill,
    open_form,
    seconds_of_elevation,
    send,
    session_of,
    sign_in,
)
from tests.journeys.operator_day import Day, wait_settled
from tests.journeys.story import Told
from tests.journeys.watch import watching
from tests.people import session_cookie

UNIT: Final = 10**9
REFUSED_WITHIN: Final = timedelta(seconds=1)
ALONE, TOGETHER = 25, 250  # below and above what one operator gives alone


def suspend_and_resume(day: Day) -> None:
    """New calls are refused within a second at two processes, and admitted again afterwards."""
    page = day.page
    go(page, "backoffice:tenants")
    assert_speaks(page, day.language)
    day.album.take(page, "tenants")
    go(page, "backoffice:tenant", day.tenant.public_id)
    assert_speaks(page, day.language)
    day.album.take(page, "tenant")
    name = page.locator("h1").inner_text().strip()
    with watching(day.gateways, day.tenant.key.token, day.slug) as watch:
        watch.wait_past(utc_now())
        why = "a stolen card"
        dialog = open_form(page, "tenant-suspend")
        fill(dialog, reason=why, calls="finish")
        expect(hook(dialog, "suspend-confirm")).to_be_disabled()
        fill(dialog, confirm=name)
        day.album.take(page, "suspend", full_page=False)
        send(dialog, "suspend-confirm")
        expect(hook(page, "tenant-resume")).to_be_visible()
        day.tell("tenant.suspend", why, before={"state": "ACTIVE"}, after={"state": "SUSPENDED"})
        (event,) = rows_of("tenants_auditevent", tenant_id=day.tenant.id, action="tenant.suspend")
        suspended_at = event["at"]
        assert isinstance(suspended_at, datetime)
        watch.wait_past(suspended_at + REFUSED_WITHIN)
        watch.assert_refused(suspended_at, within=REFUSED_WITHIN)
        day.album.take(page, "tenant-suspended")

        why = "the card was theirs"
        dialog = open_form(page, "tenant-resume")
        fill(dialog, reason=why)
        day.album.take(page, "resume", full_page=False)
        send(dialog, "resume-confirm")
        expect(hook(page, "tenant-resume")).to_have_count(0)
        day.tell("tenant.resume", why, before={"state": "SUSPENDED"}, after={"state": "ACTIVE"})
        (event,) = rows_of("tenants_auditevent", tenant_id=day.tenant.id, action="tenant.resume")
        resumed_at = event["at"]
        assert isinstance(resumed_at, datetime)
        watch.wait_past(resumed_at + REFUSED_WITHIN)
        for lane in watch.lanes:
            late = [one for one in watch.of(*lane) if one.sent_at > resumed_at + REFUSED_WITHIN]
            assert {one.status for one in late} == {200}, late
    day.calls += watch.served()
    wait_settled(day.tenant, day.calls)


def order_credit(day: Day) -> tuple[int, str]:
    """Below the limit at once, above it not; nobody approves an own order. The balance before, the order."""
    page = day.page
    go(page, "backoffice:tenant", day.tenant.public_id)
    before = nanos(hook(page, "tenant-balance"))
    granted = nanos(hook(page, "tenant-granted"))
    why = "for the trouble"
    dialog = open_form(page, "tenant-credit")
    fill(dialog, kind="GRANT", amount=str(ALONE), reason=why)
    day.album.take(page, "credit", full_page=False)
    send(dialog, "credit-order")
    assert nanos(hook(page, "tenant-balance")) == before + ALONE * UNIT
    day.tell(
        "credit.order",
        why,
        before={"granted_nanos": granted},
        after={"granted_nanos": granted + ALONE * UNIT, "amount_nanos": ALONE * UNIT, "state": "POSTED"},
    )

    why = "for their launch"
    dialog = open_form(page, "tenant-credit")
    fill(dialog, kind="GRANT", amount=str(TOGETHER), reason=why)
    send(dialog, "credit-order")
    assert nanos(hook(page, "tenant-balance")) == before + ALONE * UNIT
    day.tell("credit.order", why, after={"amount_nanos": TOGETHER * UNIT, "state": "WAITING"})
    day.album.take(page, "credit-waits")

    go(page, "backoffice:approvals")
    row = hook(page, "waiting-order").filter(has=page.locator(f'a[href*="{day.tenant.public_id}"]'))
    order = row.get_attribute("data-order") or ""
    expect(hook(row, "order-withdraw")).to_be_visible()
    expect(hook(row, "order-approve")).to_have_count(0)
    day.album.take(page, "approvals-own")
    # Where there is no button, there is still an address, which offers to withdraw, and a form to send.
    go(page, "backoffice:order-approve", order)
    expect(hook(page, "order-withdraw")).to_be_visible()
    expect(hook(page, "order-decide")).to_have_count(0)
    day.visits.complaints.expect("403")
    page.locator('form[method=post][action$="/approve"]').evaluate("form => form.requestSubmit()")
    expect(page.locator("[role=alert]").first).to_be_visible()
    day.tell("credit.approve", _reason_of_refusal(day, "credit.approve"), outcome="REFUSED")
    day.album.take(page, "own-order-refused")
    go(page, "backoffice:tenant", day.tenant.public_id)
    assert nanos(hook(page, "tenant-balance")) == before + ALONE * UNIT
    return before, order


def _reason_of_refusal(day: Day, action: str) -> str:
    """What stands there for a refusal: a sentence of the house, not of the operator."""
    (event,) = rows_of(
        "tenants_auditevent", actor_id=day.operator.person.id, action=action, outcome="REFUSED"
    )
    assert event["reason"]
    return str(event["reason"])


def approve(day: Day, order: str) -> None:
    """Another operator sees that something waits, and approves it."""
    page, colleague = day.visits.open(language=day.language), day.backstage(make_operator)
    sign_in(page, colleague)
    expect(hook(page, "approvals-waiting")).to_be_visible()
    day.album.take(page, "home-of-the-second")
    go(page, "backoffice:approvals")
    assert_speaks(page, day.language)
    day.album.take(page, "approvals")
    hook(page, "waiting-order", order=order).locator('[data-testid="order-approve"]').click()
    dialog = page.locator("dialog[open]")
    fill(dialog, reason="agreed with sales")
    day.album.take(page, "approve", full_page=False)
    send(dialog, "order-decide")
    expect(hook(page, "waiting-order", order=order)).to_have_count(0)
    day.album.take(page, "approved")
    (event,) = rows_of("tenants_auditevent", actor_id=colleague.person.id)
    assert (
        Told(
            "credit.approve",
            "agreed with sales",
            before={"state": "WAITING"},
            after={"state": "POSTED", "amount_nanos": TOGETHER * UNIT},
        ).matches(event)
        == []
    )
    page.context.close()


def see_credit(day: Day, before_nanos: int) -> None:
    """The balance of the tenant's own pages is what operators gave."""
    page = day.visits.open(language=day.language, session=day.backstage(session_cookie, day.owner))
    go(page, "console:statement", day.tenant.public_id)
    assert nanos(hook(page, "statement-closing")) == before_nanos + (ALONE + TOGETHER) * UNIT
    assert_speaks(page, day.language)
    day.album.take(page, "statement-of-the-tenant")
    hooks.field(page, "kind").select_option("GRANT")
    expect(page).to_have_url(re.compile("kind=GRANT"))
    amounts = [nanos(line) for line in hook(page, "statement-amount").all()]
    assert amounts[-2:] == [ALONE * UNIT, TOGETHER * UNIT]
    go(page, "console:overview", day.tenant.public_id)
    day.album.take(page, "overview-of-the-tenant")
    page.context.close()


def make_tier(day: Day) -> str:
    """A tier that nobody reaches by paying; its name."""
    page, name, why = day.page, unique_name("Gold"), "for launches"
    taken = {row["rank"] for row in rows_of("quotas_tier")}
    go(page, "backoffice:tiers")
    assert_speaks(page, day.language)
    day.album.take(page, "tiers")
    go(page, "backoffice:tier-new")
    form = hook(page, "tier-form")
    rank = next(number for number in range(900, 0, -1) if number not in taken)
    fill(form, name=name, code=name.lower(), rank=str(rank), reason=why, REQUESTS_RPM="600")
    day.album.take(page, "tier-new")
    hook(form, "tier-save").click()
    expect(hook(page, "tier-row", code=name.lower())).to_be_visible()
    day.album.take(page, "tiers-with-one")
    day.tell("tier.create", why, after={"name": name})
    return name


def assign_after_the_session_ended(day: Day, tier: str) -> None:
    """The elevated session ends while the form is open: refused, proven in another tab, and sent again."""
    page, why = day.page, "their launch week"
    go(page, "backoffice:tenant-limits", day.tenant.public_id)
    dialog = open_form(page, "tenant-tier")
    fill(dialog, tier=tier, reason=why)
    day.album.take(page, "assign-tier", full_page=False)
    day.backstage(age_proof, session_of(page), seconds_of_elevation() + 1)
    hook(dialog, "tenant-tier-save").click()
    notice = dialog.locator("[data-request-failed]")
    expect(hook(notice, "elevate")).to_be_visible()
    day.album.take(page, "not-elevated", full_page=False)
    assert rows_of("quotas_tierassignment", tenant_id=day.tenant.id) == []
    day.tell("operator.tenant_tier", _reason_of_refusal(day, "operator.tenant_tier"), outcome="REFUSED")
    with page.context.expect_page() as opened:
        hook(notice, "elevate").click()
    proof = opened.value
    assert day.operator.totp_secret is not None
    hooks.field(proof, "code").fill(next_totp_code(day.operator.totp_secret))
    day.album.take(proof, "second-factor")
    proof.locator('form[action*="reauthenticate"] button[type=submit]').click()
    expect(proof).to_have_url(re.compile("/operator/elevated"))
    day.album.take(proof, "elevated-again")
    proof.close()
    assert hooks.field(dialog, "reason").input_value() == why
    send(dialog, "tenant-tier-save")
    expect(hook(page, "tier-name")).to_have_text(tier)
    day.tell("tier.assign", why, before={"overrides": []}, after={"tier": tier.lower()})


def limit(day: Day) -> None:
    page, why = day.page, "until they have paid"
    dialog = open_form(page, "limit-new")
    fill(dialog, kind=LimitKind.TOKENS_DAY.value, value="2,000,000", reason=why)
    day.album.take(page, "limit-new", full_page=False)
    send(dialog, "limit-new-save")
    expect(hook(page, "set-limit")).to_have_count(1)
    day.tell("limit.set", why, after={"kind": "TOKENS_DAY", "value": 2_000_000})
    assert_speaks(page, day.language)
    day.album.take(page, "limits")


def see_limits(day: Day, tier: str) -> None:
    """The tenant's own page of limits says so, too."""
    page = day.visits.open(language=day.language, session=day.backstage(session_cookie, day.owner))
    go(page, "console:limits", day.tenant.public_id)
    expect(hook(page, "tier-name")).to_have_text(tier)
    lines = hook(page, "effective-limits")
    expect(hook(lines, "limit-line", kind="REQUESTS_RPM", source="TIER")).to_contain_text("600")
    expect(hook(lines, "limit-line", kind="TOKENS_DAY", source="OPERATOR")).to_be_visible()
    assert_speaks(page, day.language)
    day.album.take(page, "limits-of-the-tenant")
    page.context.close()
