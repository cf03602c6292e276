"""Drafts: what can be entered, what is refused and where, and who learns of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connections, transaction

from models_catalog.models import PriceLine, PriceVersion, PriceWindow, PriceWindowSpan
from models_catalog.pricing import drafts, queries
from models_catalog.pricing.checks import Fault, InvalidTariff, WindowEntry
from models_catalog.pricing.content import EMPTY, Gap, PriceContent, PriceLineContent, gaps
from models_catalog.pricing.storage import read_content
from models_catalog.pricing.tests.shops import (
    UNIT,
    line,
    make_draft,
    publish_from,
    some_operator,
    version,
    window,
)
from portal.kit.clock import utc_now
from tenants.models import AuditEvent
from tenants.scope import role_scope
from tests.factories import make_model, make_price, make_tenant

pytestmark = pytest.mark.usefixtures("database")

FLAT = (line("input", UNIT), line("output", 2 * UNIT))


def content_of(version_id: UUID) -> PriceContent:
    with role_scope("operator"):
        return read_content(PriceVersion.objects.get(id=version_id))


def events_of(version_id: UUID) -> list[AuditEvent]:
    with role_scope("operator"):
        return list(AuditEvent.objects.filter(target=drafts.price_id(version_id)).order_by("id"))


def save(
    version_id: UUID,
    lines: Sequence[PriceLineContent] = FLAT,
    windows: Sequence[WindowEntry] = (),
    **fields: Any,
) -> PriceContent:
    values: dict[str, Any] = {"time_zone": "UTC", "actor": some_operator(), "now": utc_now()}
    with role_scope("operator"):
        return drafts.update_draft(version_id=version_id, lines=lines, windows=windows, **(values | fields))


def test_a_draft_begins_with_what_it_copies_and_says_who_made_it() -> None:
    model, actor = make_model(), some_operator()
    assert model.price_version_id is not None
    copied = make_draft(model.id, actor=actor, copy_of=model.price_version_id)
    assert content_of(copied) == content_of(model.price_version_id)
    assert version(copied).created_by_id == actor.user_id
    assert version(copied).published_at is None
    empty = make_draft(model.id, actor=actor)
    assert content_of(empty) == EMPTY
    assert gaps(EMPTY.lines) == [Gap("standard", "input", 0), Gap("standard", "output", 0)]
    [event] = events_of(copied)
    assert (event.action, event.actor_id, event.is_internal) == ("price.draft", actor.user_id, True)
    assert event.after is not None
    assert event.after["copy_of"] == drafts.price_id(model.price_version_id)


def test_a_draft_is_edited_as_a_whole() -> None:
    draft = make_draft(make_model().id, FLAT)
    lines = (
        *FLAT,
        line("input", UNIT // 2, window="night"),
        line("input", 1, service_tier="batch", input_to_tokens=100),
        line("input", 3, service_tier="batch", input_from_tokens=100),
        line("output", 3, service_tier="batch"),
    )
    windows = (window("night", "Mon-Fri 22:00-06:00", "Sat 00:00-Sun 24:00"),)
    before = content_of(draft)
    saved = save(draft, lines, windows, time_zone="Asia/Shanghai")
    assert content_of(draft) == saved
    assert saved.lines == frozenset(lines)
    assert saved.time_zone == version(draft).time_zone == "Asia/Shanghai"
    event = events_of(draft)[-1]
    assert (event.action, event.before) == ("price.edit", before.described())
    assert event.after == saved.described()
    known = len(events_of(draft))
    assert save(draft, lines, windows, time_zone="Asia/Shanghai") == saved
    assert len(events_of(draft)) == known


@pytest.mark.parametrize(
    ("lines", "windows", "time_zone", "expected"),
    [
        (FLAT, (), "Mars/Olympus", [(Fault.UNKNOWN_ZONE, "time_zone", None, "")]),
        (FLAT, (), "UTC+8", [(Fault.UNKNOWN_ZONE, "time_zone", None, "")]),
        (FLAT, (window("", "Mon 00:00-01:00"),), "UTC", [(Fault.NAME_MISSING, "windows", 0, "name")]),
        (FLAT, (window("a\nb", "Mon 00:00-01:00"),), "UTC", [(Fault.NAME_NOT_TEXT, "windows", 0, "name")]),
        (FLAT, (window("night"),), "UTC", [(Fault.SPANS_MISSING, "windows", 0, "spans")]),
        (
            FLAT,
            (window("a", "Mon 00:00-02:00"), window("a", "Mon 01:00-03:00")),
            "UTC",
            [(Fault.NAME_TWICE, "windows", 1, "name"), (Fault.SPANS_OVERLAP, "windows", 1, "spans")],
        ),
        ((*FLAT, line("input", 1)), (), "UTC", [(Fault.LINE_TWICE, "lines", 2, "token_class")]),
        ((line("words", 1),), (), "UTC", [(Fault.CLASS_UNKNOWN, "lines", 0, "token_class")]),
        (
            (line("input", 1, service_tier="x"),),
            (),
            "UTC",
            [(Fault.TIER_UNKNOWN, "lines", 0, "service_tier")],
        ),
        ((line("input", 1, window="x"),), (), "UTC", [(Fault.WINDOW_UNKNOWN, "lines", 0, "window")]),
        (
            (line("input", -1), line("output", 1000 * UNIT + 1)),
            (),
            "UTC",
            [
                (Fault.PRICE_OUT_OF_RANGE, "lines", 0, "price"),
                (Fault.PRICE_OUT_OF_RANGE, "lines", 1, "price"),
            ],
        ),
        (
            (line("input", 1, input_from_tokens=5, input_to_tokens=5),),
            (),
            "UTC",
            [(Fault.LENGTHS_BACKWARD, "lines", 0, "input_to")],
        ),
        (
            (line("input", 1, input_to_tokens=20_000_001),),
            (),
            "UTC",
            [(Fault.LENGTH_OUT_OF_RANGE, "lines", 0, "input_to")],
        ),
        (FLAT * 61, (), "UTC", [(Fault.TOO_MANY, "lines", None, "")]),
    ],
)
def test_every_mistake_is_told_with_its_place_and_nothing_is_stored(
    lines: Sequence[PriceLineContent],
    windows: Sequence[WindowEntry],
    time_zone: str,
    expected: list[tuple[Fault, str, int | None, str]],
) -> None:
    draft = make_draft(make_model().id, FLAT)
    before = content_of(draft)
    with pytest.raises(InvalidTariff) as raised:
        save(draft, lines, windows, time_zone=time_zone)
    assert [(each.fault, each.part, each.index, each.field) for each in raised.value.problems] == expected
    assert content_of(draft) == before


def test_two_operators_do_not_overwrite_each_other() -> None:
    draft = make_draft(make_model().id, FLAT)
    read = content_of(draft).sha256
    save(draft, (line("input", 3), line("output", 4)), expected=read)
    with pytest.raises(drafts.DraftChanged):
        save(draft, FLAT, expected=read)
    assert line("input", 3) in content_of(draft).lines


def test_a_discarded_draft_leaves_only_its_audit() -> None:
    model = make_model()
    draft = make_draft(model.id, FLAT, windows=(window("night", "Mon 00:00-01:00"),))
    with role_scope("operator"):
        drafts.discard_draft(version_id=draft, actor=some_operator(), now=utc_now(), reason="a mistake")
        for table in (PriceLine, PriceWindow, PriceWindowSpan):
            assert not table.objects.filter(version_id=draft).exists()
        with pytest.raises(queries.PriceNotFound):
            queries.version_page(version_id=draft, now=utc_now())
        with pytest.raises(drafts.DraftNotFound):
            drafts.discard_draft(version_id=draft, actor=some_operator(), now=utc_now())
    assert [event.action for event in events_of(draft)] == ["price.draft", "price.edit", "price.discard"]


def test_published_versions_are_no_drafts() -> None:
    model = make_model()
    assert model.price_version_id is not None
    with pytest.raises(drafts.DraftNotFound):
        save(model.price_version_id)
    with role_scope("operator"), pytest.raises(drafts.DraftNotFound):
        drafts.discard_draft(version_id=model.price_version_id, actor=some_operator(), now=utc_now())


@pytest.mark.parametrize("column", ["created_by_id", "published_by_id"])
def test_nobody_else_becomes_the_author_of_a_published_price(column: str) -> None:
    model, other = make_model(), some_operator()
    change = f"UPDATE models_catalog_priceversion SET {column} = %s WHERE id = %s"
    with (
        role_scope("operator"),
        pytest.raises(IntegrityError, match="is published"),
        transaction.atomic(using="operator"),
        connections["operator"].cursor() as cursor,
    ):
        cursor.execute(change, [other.user_id, model.price_version_id])


def test_a_private_draft_is_in_the_currency_of_the_wallet() -> None:
    model, tenant = make_model(), make_tenant("CNY")
    with pytest.raises(drafts.WrongCurrency):
        make_draft(model.id, tenant_id=tenant.id)
    with pytest.raises(drafts.ModelNotPriced):
        make_draft(model.id, tenant_id=uuid4())
    with pytest.raises(drafts.ModelNotPriced):
        make_draft(model.id, copy_of=make_model().price_version_id)
    with pytest.raises(drafts.ModelNotPriced):
        make_draft(uuid4())
    with role_scope("operator"), pytest.raises(drafts.WrongCurrency):
        drafts.create_draft(
            model_id=model.id, currency="EUR", currencies=["USD"], actor=some_operator(), now=utc_now()
        )
    assert version(make_draft(model.id, tenant_id=tenant.id, currency="CNY")).tenant_id == tenant.id


def test_drafts_are_bounded() -> None:
    model, actor = make_model(), some_operator()
    for _ in range(drafts.MAX_DRAFTS):
        make_draft(model.id, actor=actor)
    with pytest.raises(drafts.TooManyDrafts):
        make_draft(model.id, actor=actor)


def test_the_board_shows_every_price_of_a_model() -> None:
    model, tenant = make_model(), make_tenant()
    private = make_price(model.id, tenant_id=tenant.id)
    draft = make_draft(model.id, FLAT)
    scheduled = make_draft(model.id, FLAT)
    publish_from(scheduled, utc_now() + timedelta(days=1))
    with role_scope("operator"):
        board = queries.price_board(now=utc_now(), search=model.slug)
        [group] = board.groups
        assert group.in_force is not None
        assert group.in_force.id == model.price_version_id
        assert [row.id for row in group.rows] == [model.price_version_id, scheduled, private, draft]
        assert (group.in_force.input_nanos, group.in_force.cached_nanos) == (UNIT, UNIT)
        for only, ids in (("drafts", [draft]), ("scheduled", [scheduled]), ("private", [private])):
            [found] = queries.price_board(now=utc_now(), search=model.slug, only=only).groups
            assert [row.id for row in getattr(found, only)] == ids
        unpriced = make_model(prices=None)
        [group] = queries.price_board(now=utc_now(), search=unpriced.slug).groups
        assert (group.currency, group.rows) == ("", ())
        versions = queries.list_versions(now=utc_now(), model_id=model.id)
        assert {row.id for row in versions} == {model.price_version_id, private, draft, scheduled}
