"""The database itself keeps published prices: they never change, never overlap and leave no gap."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, IntegrityError, OperationalError, connections, transaction

from models_catalog.models import CatalogModel, PriceVersion
from models_catalog.tests.price_drafts import Draft, Line, make_draft, make_model, undone
from tenants.operations import create_tenant
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")

LINES = [Line("input", 1), Line("output", 1), Line("input", 1, window="night")]
SPANS = [("night", 0, 60)]
PAST = datetime(2026, 1, 1, tzinfo=UTC)
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)


def publish(draft: Draft) -> UUID:
    PriceVersion.objects.filter(id=draft.version_id).update(published_at=PAST)
    return draft.version_id


def execute(sql: str, parameters: Sequence[Any], *, using: str = "operator") -> None:
    """One statement in a savepoint, or in a transaction of its own, that waits for no lock."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '50ms'")
        cursor.execute(sql, parameters)


def refused(
    sql: str, parameters: Sequence[Any], because: str, error: type[Exception] = IntegrityError
) -> None:
    with pytest.raises(error, match=because):
        execute(sql, parameters)


@pytest.mark.parametrize(
    "change",
    [
        "id = gen_random_uuid()",
        "model_id = gen_random_uuid()",
        "tenant_id = gen_random_uuid()",
        "currency = 'CNY'",
        "time_zone = 'Asia/Shanghai'",
        "active_from = active_from + interval '1 second'",
        "active_from = now()",
        "published_at = NULL",
        "published_at = now()",
        "created_at = now() - interval '1 day'",
        "active_to = now() - interval '1 second'",
        "active_to = active_from",
    ],
)
def test_a_published_version_does_not_change(change: str) -> None:
    with undone():
        version_id = publish(make_draft(LINES, spans=SPANS))
        sql = f"UPDATE models_catalog_priceversion SET {change} WHERE id = %s"
        refused(sql, [version_id], "is published; only an end that has not passed may be set")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE models_catalog_priceline SET price_nanos_per_million = 2 WHERE version_id = %s",
        "UPDATE models_catalog_priceline SET service_tier = 'batch' WHERE version_id = %s",
        "DELETE FROM models_catalog_priceline WHERE version_id = %s",
        "INSERT INTO models_catalog_priceline (id, version_id, token_class, service_tier, input_from_tokens, "
        "price_nanos_per_million) VALUES (gen_random_uuid(), %s, 'image', 'standard', 0, 1)",
        "UPDATE models_catalog_pricewindow SET name = 'other' WHERE version_id = %s",
        "INSERT INTO models_catalog_pricewindow (id, version_id, name) "
        "VALUES (gen_random_uuid(), %s, 'other')",
        "UPDATE models_catalog_pricewindowspan SET minutes = '[0,120)' WHERE version_id = %s",
        "DELETE FROM models_catalog_pricewindowspan WHERE version_id = %s",
    ],
)
def test_the_parts_of_a_published_version_do_not_change(sql: str) -> None:
    with undone():
        version_id = publish(make_draft(LINES, spans=SPANS))
        refused(sql, [version_id], "is published; its parts are frozen")


def test_a_line_does_not_move_between_versions() -> None:
    with undone():
        model = make_model()
        published = publish(make_draft(LINES, model=model, spans=SPANS))
        draft = make_draft(LINES, model=model).version_id
        move = "UPDATE models_catalog_priceline SET version_id = %s, window_id = NULL WHERE version_id = %s"
        refused(move, [draft, published], "its parts are frozen")
        refused(move, [published, draft], "its parts are frozen")


def test_a_published_version_is_not_deleted() -> None:
    with undone():
        version_id = publish(make_draft(LINES))
        refused("DELETE FROM models_catalog_priceversion WHERE id = %s", [version_id], "cannot be deleted")


def test_a_draft_may_change_and_go() -> None:
    with undone():
        version_id = make_draft(LINES, spans=SPANS).version_id
        with connections["operator"].cursor() as cursor:
            for sql in (
                "UPDATE models_catalog_priceversion SET currency = 'CNY' WHERE id = %s",
                "UPDATE models_catalog_priceline SET price_nanos_per_million = 2 WHERE version_id = %s",
                "DELETE FROM models_catalog_priceline WHERE version_id = %s",
                "DELETE FROM models_catalog_pricewindowspan WHERE version_id = %s",
                "DELETE FROM models_catalog_pricewindow WHERE version_id = %s",
                "DELETE FROM models_catalog_priceversion WHERE id = %s",
            ):
                cursor.execute(sql, [version_id])


def test_only_an_end_that_has_not_passed_may_be_moved() -> None:
    end = "UPDATE models_catalog_priceversion SET active_to = %s WHERE id = %s"
    with undone():
        version_id = publish(make_draft(LINES))
        for later in (FUTURE, FUTURE + timedelta(days=1), FUTURE):
            PriceVersion.objects.filter(id=version_id).update(active_to=later)
        refused(end, [None, version_id], "only an end that has not passed")
        refused(end, [datetime(2026, 2, 1, tzinfo=UTC), version_id], "only an end that has not passed")
        over = publish(make_draft(LINES, active_to=datetime(2026, 2, 1, tzinfo=UTC)))
        refused(end, [FUTURE, over], "only an end that has not passed")


def test_a_version_that_never_held_can_be_withdrawn() -> None:
    with undone():
        model = make_model()
        version_id = publish(make_draft(LINES, model=model, active_from=FUTURE))
        PriceVersion.objects.filter(id=version_id).update(active_to=FUTURE)
        publish(make_draft(LINES, model=model, active_from=FUTURE))


def overlapping(model: CatalogModel, **fields: Any) -> str:
    """The error of publishing one more version, or nothing."""
    draft = make_draft(LINES, model=model, **fields)
    try:
        with transaction.atomic(using="operator"):
            publish(draft)
    except IntegrityError as error:
        return str(error)
    return ""


def test_published_versions_of_one_kind_do_not_overlap() -> None:
    day = timedelta(days=1)
    with undone():
        model = make_model()
        tenant = create_tenant(name="Private", currency="USD", owner_id=None)
        publish(make_draft(LINES, model=model, active_from=PAST, active_to=FUTURE))
        assert "price_no_overlap" in overlapping(model)
        assert "price_no_overlap" in overlapping(model, active_from=FUTURE - day)
        assert "price_no_overlap" in overlapping(model, active_from=PAST - day, active_to=PAST + day)
        assert overlapping(model, active_from=FUTURE) == ""
        assert overlapping(model, active_from=PAST - day, active_to=PAST) == ""
        assert overlapping(model, currency="CNY") == ""
        assert overlapping(model, tenant=tenant) == ""
        assert "price_no_overlap" in overlapping(model, tenant=tenant, active_from=FUTURE)
        assert overlapping(make_model()) == ""


@pytest.mark.parametrize(
    ("lines", "gap"),
    [
        ([], "standard/input, standard/output"),
        ([Line("input", 1)], "standard/output"),
        ([Line("input", 1, end=5), Line("output", 1)], "standard/input"),
        ([Line("input", 1, start=5), Line("output", 1)], "standard/input"),
        ([Line("input", 1, end=5), Line("input", 1, start=6), Line("output", 1)], "standard/input"),
        ([Line("input", 1, window="night"), Line("output", 1)], "standard/input"),
        ([Line("input", 1), Line("output", 1), Line("image", 1, tier="batch")], "batch/input, batch/output"),
    ],
)
def test_a_version_with_a_gap_is_not_published(lines: list[Line], gap: str) -> None:
    with undone():
        draft = make_draft(lines, spans=SPANS)
        refused(
            "UPDATE models_catalog_priceversion SET published_at = now() WHERE id = %s",
            [draft.version_id],
            f"has no price for every input length: {gap}",
        )


@pytest.mark.parametrize("time_zone", ["Mars/Olympus", "UTC+8", "<X>-03"])
def test_a_version_in_an_unknown_time_zone_is_not_published(time_zone: str) -> None:
    with undone():
        draft = make_draft(LINES, time_zone=time_zone)
        publish_sql = "UPDATE models_catalog_priceversion SET published_at = now() WHERE id = %s"
        refused(publish_sql, [draft.version_id], "is not a time zone", DataError)


@pytest.mark.parametrize(
    ("line", "constraint"),
    [
        (Line("input", 1), "line_no_overlap"),
        (Line("input", 1, start=7, end=8), "line_no_overlap"),
        (Line("input", 1, window="night", start=3), "line_no_overlap"),
        (Line("image", -1), "line_price_bounded"),
        (Line("image", 1_000 * 10**9 + 1), "line_price_bounded"),
        (Line("image", 1, start=5, end=5), "line_band_forward"),
        (Line("prompt", 1), "line_class_known"),
        (Line("image", 1, tier="cheap"), "line_tier_known"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(line: Line, constraint: str) -> None:
    with undone(), pytest.raises(IntegrityError, match=constraint), transaction.atomic(using="operator"):
        make_draft([*LINES, line])


def test_spans_do_not_overlap_and_stay_within_the_week() -> None:
    for spans in ([("a", 0, 60), ("b", 59, 61)], [("a", 0, 10_081)], [("a", -1, 5)], [("a", 5, 5)]):
        with undone(), pytest.raises(IntegrityError, match="span_"), transaction.atomic(using="operator"):
            make_draft(LINES, spans=spans)


def test_a_window_belongs_to_its_version() -> None:
    move = (
        "UPDATE models_catalog_priceline SET window_id = %s WHERE version_id = %s AND window_id IS NOT NULL"
    )
    with undone():
        one, other = make_draft(LINES, spans=SPANS), make_draft(LINES, spans=SPANS)
        refused(move, [other.window_ids["night"], one.version_id], "_fk")


INSERT_LINE = (
    "INSERT INTO models_catalog_priceline (id, version_id, token_class, service_tier, input_from_tokens, "
    "price_nanos_per_million) VALUES (gen_random_uuid(), %s, 'image', 'standard', 0, 1)"
)
PUBLISH = "UPDATE models_catalog_priceversion SET published_at = now() WHERE id = %s"


def test_no_line_slips_in_while_a_version_is_being_published() -> None:
    """Whoever comes second waits for the first, and then sees what it did."""
    with role_scope("operator"):
        draft = make_draft(LINES)
        with transaction.atomic(using="operator"):
            execute(PUBLISH, [draft.version_id])
            with pytest.raises(OperationalError, match="lock timeout"):
                execute(INSERT_LINE, [draft.version_id], using="owner")
    with pytest.raises(IntegrityError, match="its parts are frozen"):
        execute(INSERT_LINE, [draft.version_id], using="owner")


def test_a_version_is_not_published_over_a_line_that_is_being_written() -> None:
    with role_scope("operator"):
        draft = make_draft(LINES)
    with transaction.atomic(using="owner"):
        execute(INSERT_LINE, [draft.version_id], using="owner")
        with pytest.raises(OperationalError, match="lock timeout"):
            execute(PUBLISH, [draft.version_id])
    execute(PUBLISH, [draft.version_id])
