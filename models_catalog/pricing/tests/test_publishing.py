"""Publishing: one price at any moment, notice for whoever pays more, and a trail of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connections, transaction

from models_catalog.models import PriceNotice, PriceNoticeKind, PriceVersion
from models_catalog.pricing import affected, publish
from models_catalog.pricing.drafts import DraftChanged, DraftNotFound, price_id
from models_catalog.pricing.locking import CatalogBusy
from models_catalog.pricing.notices import mail_notices
from models_catalog.pricing.storage import read_content
from models_catalog.pricing.tests.shops import UNIT, line, make_draft, publish_from, some_operator, version
from models_catalog.queries.prices import version_at
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants.models import AuditEvent, OutboxMessage, Role, User
from tenants.operations.audit import ReasonMissing
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_price, make_tenant
from tests.people import make_member

pytestmark = pytest.mark.usefixtures("database")

WEEK = timedelta(days=7)
INSTANT = timedelta(microseconds=1)


def flat(price: int) -> tuple[Any, ...]:
    return line("input", price), line("output", 2 * price)


def shop(**options: Any) -> tuple[ModelFixture, TenantFixture]:
    model, tenant = make_model(), make_tenant(**options)
    enable(tenant, model)
    return model, tenant


def price_at(model: ModelFixture, tenant: TenantFixture, at: datetime) -> UUID | None:
    with role_scope("operator"):
        return version_at(model_id=model.id, tenant_id=tenant.id, currency="USD", at=at)


def notices_of(version_id: UUID, kind: PriceNoticeKind = PriceNoticeKind.NEW_PRICE) -> list[PriceNotice]:
    with role_scope("operator"):
        return list(PriceNotice.objects.filter(version_id=version_id, kind=kind))


def mail_all() -> None:
    with role_scope("operator"):
        mail_notices(now=utc_now() + timedelta(seconds=1), limit=10_000, portal_url="https://sluice.example")


def mails_to(email: str) -> list[OutboxMessage]:
    with role_scope("auth"):
        return list(OutboxMessage.objects.filter(to_email=email))


def test_the_predecessor_ends_where_the_new_version_begins() -> None:
    model, tenant = shop()
    draft, actor = make_draft(model.id, flat(UNIT // 2)), some_operator()
    at = utc_now() + timedelta(hours=1)
    done = publish_from(draft, at, actor=actor)
    assert (done.ends, done.active_to, done.withdraws) == (model.price_version_id, None, ())
    assert model.price_version_id is not None
    assert version(model.price_version_id).active_to == version(draft).active_from == at
    assert version(draft).published_by_id == actor.user_id
    assert price_at(model, tenant, at - INSTANT) == model.price_version_id
    assert price_at(model, tenant, at) == draft
    with role_scope("operator"):
        event = AuditEvent.objects.get(target=price_id(draft), action="price.publish")
    assert (event.actor_id, event.reason) == (actor.user_id, "for the test")
    assert event.after is not None
    assert event.after["ends"] == price_id(model.price_version_id)
    assert (event.after["affected"], event.after["told"]) == (1, 0)
    with pytest.raises(DraftNotFound):
        publish_from(draft, at + WEEK)


def test_a_change_lies_ahead_by_the_databases_clock() -> None:
    model, _ = shop()
    draft = make_draft(model.id, flat(UNIT))
    for at in (
        utc_now() - WEEK,
        utc_now() + timedelta(seconds=50),
        utc_now() + publish.MAX_AHEAD + timedelta(days=1),
    ):
        with pytest.raises(publish.InvalidMoment) as raised:
            publish_from(draft, at)
        assert raised.value.earliest_at <= utc_now() + publish.MIN_LEAD
    assert version(draft).published_at is None
    publish_from(draft, utc_now() + timedelta(seconds=62))


def test_a_transaction_that_takes_too_long_does_not_commit() -> None:
    """However late it commits: what was promised to lie ahead does."""
    model, _ = shop()
    draft = make_draft(model.id, flat(UNIT))

    def publish_and_dawdle() -> None:
        with role_scope("operator"), transaction.atomic(using="operator"):
            lead = timedelta(milliseconds=100)
            publish_from(draft, utc_now() + timedelta(seconds=1), lead=lead)
            with connections["operator"].cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1)")

    with pytest.raises(IntegrityError, match="about to pass"):
        publish_and_dawdle()
    assert version(draft).published_at is None
    assert model.price_version_id is not None
    assert version(model.price_version_id).active_to is None


def test_a_reason_and_whole_prices_are_needed() -> None:
    model, _ = shop()
    with pytest.raises(ReasonMissing):
        publish_from(make_draft(model.id, flat(UNIT)), utc_now() + WEEK, reason=" ")
    with pytest.raises(publish.IncompleteDraft) as raised:
        publish_from(make_draft(model.id, [line("input", 1, input_to_tokens=10)]), utc_now() + WEEK)
    assert [(gap.token_class, gap.from_tokens) for gap in raised.value.gaps] == [("input", 10), ("output", 0)]


def test_what_was_looked_at_is_what_is_published() -> None:
    model, _ = shop()
    draft = make_draft(model.id, flat(UNIT))
    with pytest.raises(DraftChanged):
        publish_from(draft, utc_now() + WEEK, expected="0" * 64)
    with role_scope("operator"):
        sha256 = read_content(PriceVersion.objects.get(id=draft)).sha256
    publish_from(draft, utc_now() + WEEK, expected=sha256)


def test_a_new_version_ends_where_a_scheduled_one_begins() -> None:
    model, tenant = shop()
    later, sooner = make_draft(model.id, flat(UNIT // 2)), make_draft(model.id, flat(UNIT // 4))
    at = utc_now() + WEEK
    publish_from(later, at)
    done = publish_from(sooner, at - timedelta(days=1))
    assert (done.active_to, done.ends) == (at, model.price_version_id)
    assert price_at(model, tenant, at - INSTANT) == sooner
    assert price_at(model, tenant, at) == later
    with pytest.raises(publish.MomentTaken) as raised:
        publish_from(make_draft(model.id, flat(UNIT // 8)), at)
    assert raised.value.version_id == later


def test_scheduled_versions_can_be_replaced_and_then_never_come() -> None:
    model, tenant = shop()
    first, second, instead = (make_draft(model.id, flat(UNIT // each)) for each in (2, 3, 4))
    at = utc_now() + WEEK
    publish_from(first, at)
    publish_from(second, at + WEEK)
    done = publish_from(instead, at, replaces_scheduled=True)
    assert set(done.withdraws) == {first, second}
    for moment in (at, at + WEEK, at + 52 * WEEK):
        assert price_at(model, tenant, moment) == instead
    assert price_at(model, tenant, at - INSTANT) == model.price_version_id


# --- Increases -------------------------------------------------------------------------------------


def test_an_increase_keeps_its_notice_and_tells_who_pays_it() -> None:
    model, tenant = shop()
    people = {role: make_member(tenant, role) for role in Role}
    draft = make_draft(model.id, flat(UNIT + 1))
    with pytest.raises(publish.NoticeTooShort) as raised:
        publish_from(draft, utc_now() + WEEK - timedelta(minutes=5), notice=WEEK)
    assert abs(raised.value.earliest_at - utc_now() - WEEK) < timedelta(minutes=1)
    assert [payer.tenant_id for payer in raised.value.payers] == [tenant.id]
    assert notices_of(draft) == []
    at = utc_now() + WEEK + timedelta(minutes=1)
    [payer] = publish_from(draft, at, notice=WEEK).payers
    assert (payer.before, payer.at) == (model.price_version_id, at)
    [notice] = notices_of(draft)
    assert (notice.tenant_id, notice.before_id, notice.takes_effect_at) == (
        tenant.id,
        model.price_version_id,
        at,
    )
    mail_all()
    mail_all()
    for role in (Role.OWNER, Role.ADMIN, Role.BILLING):
        [mail] = mails_to(people[role].email)
        assert f"{at:%Y-%m-%d}" in mail.subject
        assert "$1.00 → $1.000000001" in mail.text_body
        assert f"https://sluice.example/models/{model.slug}" in mail.html_body
    for role in (Role.DEVELOPER, Role.VIEWER):
        assert mails_to(people[role].email) == []
    with role_scope("operator"):
        assert PriceNotice.objects.get(id=notice.id).mails == 3


def test_an_address_that_no_mail_reaches_holds_up_nobody_elses_notice() -> None:
    model, tenant = shop()
    reached = make_member(tenant, Role.OWNER)
    unreached = make_member(tenant, Role.OWNER)
    with role_scope("auth"):
        # A provider of sign-ins inside a company may name such addresses.
        User.objects.filter(id=unreached.id).update(email=f"{uuid7().hex}@intranet")
    draft = make_draft(model.id, flat(UNIT + 1))
    publish_from(draft, utc_now() + WEEK + timedelta(minutes=1), notice=WEEK)
    mail_all()
    assert len(mails_to(reached.email)) == 1
    [notice] = notices_of(draft)
    assert notice.mailed_at is not None
    assert notice.mails == 1


def test_nobody_has_to_hear_of_what_reaches_nobody() -> None:
    model = make_model()
    in_yuan, private, closed, plain = make_tenant("CNY"), make_tenant(), make_tenant(), make_tenant()
    for tenant in (in_yuan, private, closed):
        enable(tenant, model)
    make_price(model.id, tenant_id=private.id)
    with role_scope("operator"), connections["operator"].cursor() as cursor:
        cursor.execute("UPDATE tenants_tenant SET state = 'CLOSED' WHERE id = %s", [closed.id])
    draft = make_draft(model.id, flat(9 * UNIT))
    done = publish_from(draft, utc_now() + timedelta(minutes=2), notice=WEEK)
    assert (done.affected, done.payers) == ((), [])
    assert plain.id not in {one.tenant_id for one in done.affected}


def test_a_decrease_needs_no_notice() -> None:
    model, tenant = shop()
    done = publish_from(make_draft(model.id, flat(UNIT - 1)), utc_now() + timedelta(minutes=2), notice=WEEK)
    assert [(one.tenant_id, one.pays_more) for one in done.affected] == [(tenant.id, False)]


def test_an_end_of_a_private_price_in_the_period_makes_the_list_reach_it() -> None:
    model, tenant = shop()
    private = make_price(model.id, tenant_id=tenant.id, prices={"input": UNIT // 10, "output": UNIT // 10})
    end = utc_now() + 3 * WEEK
    with role_scope("operator"):
        PriceVersion.objects.filter(id=private).update(active_to=end)
    draft = make_draft(model.id, flat(UNIT))
    [payer] = publish_from(draft, utc_now() + WEEK, notice=WEEK - timedelta(hours=1)).payers
    assert (payer.tenant_id, payer.at, payer.before) == (tenant.id, end, private)


def test_a_rise_over_what_was_announced_is_an_increase_too() -> None:
    model, _ = shop()
    publish_from(make_draft(model.id, flat(UNIT // 2)), utc_now() + timedelta(hours=1))
    back_again = make_draft(model.id, flat(UNIT))
    with pytest.raises(publish.NoticeTooShort):
        publish_from(back_again, utc_now() + timedelta(hours=2), notice=WEEK)


def test_who_was_told_hears_that_it_will_not_come() -> None:
    model, tenant = shop()
    owner = make_member(tenant, Role.OWNER)
    dearer, kept = make_draft(model.id, flat(2 * UNIT)), make_draft(model.id, flat(UNIT))
    at = utc_now() + WEEK
    publish_from(dearer, at)
    mail_all()
    publish_from(kept, at, replaces_scheduled=True, notice=2 * WEEK)
    mail_all()
    [withdrawn] = notices_of(dearer, PriceNoticeKind.WITHDRAWN)
    assert withdrawn.mails == 1
    assert {"will not come" in mail.subject for mail in mails_to(owner.email)} == {True, False}


def test_a_withdrawn_price_is_not_announced_any_more() -> None:
    model, tenant = shop()
    owner = make_member(tenant, Role.OWNER)
    dearer, dearest = make_draft(model.id, flat(2 * UNIT)), make_draft(model.id, flat(3 * UNIT))
    at = utc_now() + WEEK
    publish_from(dearer, at)
    publish_from(dearest, at, replaces_scheduled=True)
    mail_all()
    [mail] = mails_to(owner.email)
    assert "$1.00 → $3.00" in mail.text_body


def test_one_version_is_compared_with_another() -> None:
    model, _ = shop()
    draft = make_draft(model.id, flat(2 * UNIT))
    with role_scope("operator"):
        found = affected.increases(version_id=draft, against=model.price_version_id)
        assert affected.increases(version_id=draft, against=None) == []
    assert {each.token_class for each in found} == {"input", "cached_input", "image", "output", "reasoning"}


# --- Private prices --------------------------------------------------------------------------------


def end(version_id: UUID, at: datetime, **fields: Any) -> publish.Publication:
    values: dict[str, Any] = {
        "notice": timedelta(0),
        "actor": some_operator(),
        "reason": "the contract ended",
        "now": utc_now(),
    }
    with role_scope("operator"):
        return publish.end_private_price(version_id=version_id, ends_at=at, **(values | fields))


def test_a_private_price_beats_the_list_until_it_ends() -> None:
    model, tenant = shop()
    owner = make_member(tenant, Role.OWNER)
    draft = make_draft(model.id, flat(UNIT // 2), tenant_id=tenant.id)
    at = utc_now() + timedelta(hours=1)
    done = publish_from(draft, at, notice=WEEK)
    assert (done.ends, [one.pays_more for one in done.affected]) == (None, [False])
    assert price_at(model, tenant, at) == draft
    with pytest.raises(publish.NoticeTooShort):
        end(draft, at + timedelta(days=1), notice=WEEK)
    ending = at + WEEK
    [payer] = end(draft, ending, notice=WEEK).payers
    assert payer.before == draft
    assert price_at(model, tenant, ending - INSTANT) == draft
    assert price_at(model, tenant, ending) == model.price_version_id
    mail_all()
    [mail] = mails_to(owner.email)
    assert "$0.50 → $1.00" in mail.text_body
    with role_scope("operator"):
        event = AuditEvent.objects.get(target=price_id(draft), action="price.end")
    assert event.after is not None
    assert (event.tenant_id, event.after["dearer"], event.after["told"]) == (tenant.id, True, 1)


def test_a_private_price_that_is_dearer_than_the_list_ends_without_notice() -> None:
    model, tenant = shop()
    private = make_price(model.id, tenant_id=tenant.id, prices={"input": 5 * UNIT, "output": 5 * UNIT})
    assert end(private, utc_now() + timedelta(minutes=2), notice=WEEK).payers == []
    assert model.price_version_id is not None
    with pytest.raises(publish.NotAPrivatePrice):
        end(model.price_version_id, utc_now() + WEEK)


def test_a_private_price_that_has_not_begun_is_taken_back() -> None:
    model, tenant = shop()
    draft = make_draft(model.id, flat(UNIT // 2), tenant_id=tenant.id)
    at = utc_now() + WEEK
    publish_from(draft, at)
    assert end(draft, utc_now() + timedelta(hours=1)).active_from == at
    assert price_at(model, tenant, at) == model.price_version_id
    with pytest.raises(publish.NotAPrivatePrice):
        end(draft, utc_now() + timedelta(hours=1))


def test_without_a_list_price_the_end_is_an_increase() -> None:
    model, tenant = make_model(prices=None), make_tenant()
    enable(tenant, model)
    private = make_price(model.id, tenant_id=tenant.id)
    with pytest.raises(publish.NoticeTooShort):
        end(private, utc_now() + timedelta(days=1), notice=WEEK)


def test_whoever_publishes_waits_for_whoever_does_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from models_catalog.pricing import locking

    monkeypatch.setattr(locking, "_LOCK_TIMEOUT_MS", 50)
    model, _ = shop()
    draft = make_draft(model.id, flat(UNIT))
    with transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locking._ADVISORY_KEY])
        with pytest.raises(CatalogBusy):
            publish_from(draft, utc_now() + WEEK)
    publish_from(draft, utc_now() + WEEK)
