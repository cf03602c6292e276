"""Prices' pages: drafted, tried, published and ended in pages, and nothing of what was typed gets lost."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from models_catalog.models import PriceVersion
from models_catalog.pricing.content import EMPTY, PriceContent
from models_catalog.pricing.storage import read_content
from models_catalog.pricing.tests.shops import UNIT, line, make_draft, publish_from, version
from portal.backoffice.prices.forms import local_moment, next_monday
from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, parse_public_id, public_id
from quotas.models import PriceReplay
from quotas.replay import operations as replays
from quotas.replay.tests.test_replay import USES, use
from tenants.models import AuditEvent, Role
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_price, make_tenant
from tests.people import make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")

HTMX = {"HX-Request": "true"}
FLAT = (line("input", UNIT), line("output", 2 * UNIT))
REASON = "as agreed with the board"


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


def address(name: str, version_id: UUID | None = None) -> str:
    arguments = [] if version_id is None else [public_id(PREFIXES["price"], version_id)]
    return reverse(f"backoffice:{name}", args=arguments)


def text_of(answer: Any) -> str:
    body: str = answer.content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def shop() -> tuple[ModelFixture, TenantFixture]:
    model, tenant = make_model(), make_tenant(paid="100.00")
    enable(tenant, model)
    return model, tenant


def content_of(version_id: UUID) -> PriceContent:
    with role_scope("operator"):
        return read_content(PriceVersion.objects.get(id=version_id))


def form_of(version_id: UUID, **fields: str) -> dict[str, str]:
    """The editor's fields of a flat price, changed by `fields` (with _ where names have -)."""
    form = {
        "do": "save",
        "expected": content_of(version_id).sha256,
        "time_zone": "UTC",
        "line-0-token_class": "input",
        "line-0-service_tier": "standard",
        "line-0-price": "1.25",
        "line-1-token_class": "output",
        "line-1-service_tier": "standard",
        "line-1-price": "2.5",
    }
    return form | fields


def publish_form(at: datetime, **fields: str) -> dict[str, str]:
    form = {
        "do": "publish",
        "date": f"{at:%Y-%m-%d}",
        "time": f"{at:%H:%M}",
        "zone": "UTC",
        "reason": REASON,
    }
    return form | fields


# --- Drafting --------------------------------------------------------------------------------------


def test_a_draft_begins_as_a_copy_and_leads_to_its_form(client: Client) -> None:
    model, _ = shop()
    form = {"model": model.slug, "currency": "USD", "organization": "", "begins": "copy"}
    answer = client.post(address("price-new"), form)
    assert answer.status_code == 302
    [found] = re.findall(r"/operator/prices/(prc_\w+)/edit", answer.headers["Location"])
    draft = parse_public_id(PREFIXES["price"], found)
    assert model.price_version_id is not None
    assert content_of(draft) == content_of(model.price_version_id)
    page = client.get(answer.headers["Location"])
    assert page.status_code == 200
    assert 'value="2"' in page.content.decode()
    led = client.post(address("price-new"), form | {"begins": "empty"}, headers=HTMX)
    assert led.headers["HX-Redirect"].endswith("/edit")


def test_a_new_draft_says_what_is_wrong_and_keeps_what_was_typed(client: Client) -> None:
    model, _ = shop()
    yuan = make_tenant("CNY")
    form = {"model": model.slug, "currency": "USD", "organization": "", "begins": "copy"}
    for change, words in (
        ({"model": "no/model"}, "There is no such model."),
        ({"organization": "nobody at all"}, "No organization has this name, id or member."),
        ({"organization": yuan.public_id}, "in the currency of the organization"),
    ):
        answer = client.post(address("price-new"), form | change, headers=HTMX)
        assert answer.status_code == 422
        assert words in text_of(answer)
        assert next(iter(change.values())) in answer.content.decode()


def test_a_private_price_is_drafted_for_an_organization(client: Client) -> None:
    model, tenant = shop()
    page = client.get(address("price-new"), {"organization": tenant.public_id, "model": model.slug})
    assert tenant.public_id in page.content.decode()
    form = {"model": model.slug, "currency": "USD", "organization": tenant.public_id, "begins": "copy"}
    answer = client.post(address("price-new"), form)
    draft = parse_public_id(PREFIXES["price"], answer.headers["Location"].split("/")[-2])
    assert version(draft).tenant_id == tenant.id
    assert model.price_version_id is not None
    assert content_of(draft) == content_of(model.price_version_id)
    board = client.get(address("prices"), {"organization": tenant.public_id})
    assert model.slug in text_of(board)


def test_the_form_saves_everything_at_once(client: Client) -> None:
    draft = make_draft(shop()[0].id)
    form = form_of(
        draft,
        **{
            "time_zone": "Europe/Berlin",
            "window-0-name": "night",
            "window-0-spans": "Mon-Fri 22:00-06:00, Sat 00:00-Sun 24:00",
            "line-2-token_class": "input",
            "line-2-service_tier": "standard",
            "line-2-window": "w0",
            "line-2-input_from": "0",
            "line-2-input_to": "32,000",
            "line-2-price": "0.000000001",
        },
    )
    answer = client.post(address("price-edit", draft), form)
    assert answer.status_code == 302
    content = content_of(draft)
    assert content.time_zone == "Europe/Berlin"
    assert line("input", 1, window="night", input_to_tokens=32_000) in content.lines
    assert [name for name, _ in content.windows] == ["night"]
    page = client.get(address("price-edit", draft)).content.decode()
    assert 'value="0.000000001"' in page
    assert "Mon-Thu 22:00-06:00, Fri 22:00-Sun 24:00" in page
    shown = text_of(client.get(address("price", draft)))
    assert "$0.000000001" in shown
    assert "Up to 31,999 tokens" in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"line-0-price": "1,25"}, "Write a price such as 0.27"),
        ({"line-0-price": "0.0000000001"}, "Write a price such as 0.27"),
        ({"line-0-price": "1000.000000001"}, "A price is from 0 to 1000 per million."),
        ({"line-0-price": "-1"}, "A price is from 0 to 1000 per million."),
        ({"line-0-input_to": "many"}, "Write a whole number of tokens"),
        ({"line-0-input_from": "9", "line-0-input_to": "9"}, "The end is above the beginning."),
        ({"line-1-token_class": "input"}, "Another line has a price for the same"),
        ({"line-0-window": "w7"}, "This time band is gone."),
        ({"line-0-token_class": "words"}, "Choose what is charged."),
        ({"time_zone": "Mars"}, "Write the name of a time zone"),
        ({"window-0-name": "night", "window-0-spans": "at night"}, "“at night” is no time of the week."),
        ({"window-0-name": "", "window-0-spans": "Mon 00:00-01:00"}, "Give the time band a name."),
        (
            {
                "window-0-name": "a",
                "window-0-spans": "Mon 00:00-02:00",
                "window-1-name": "b",
                "window-1-spans": "Mon 01:00-03:00",
            },
            "It is open at the same time as “a”.",
        ),
    ],
)
def test_mistakes_are_told_at_their_field_and_nothing_typed_is_lost(
    client: Client, fields: dict[str, str], words: str
) -> None:
    draft = make_draft(shop()[0].id, FLAT)
    before = content_of(draft)
    answer = client.post(address("price-edit", draft), form_of(draft, **fields))
    assert answer.status_code == 422
    assert words in text_of(answer)
    body = answer.content.decode()
    assert 'aria-invalid="true"' in body
    for name, value in (form_of(draft) | fields).items():
        if name.endswith(("price", "spans", "input_to", "name")):
            assert f'value="{value}"' in body, name
    assert content_of(draft) == before


def test_rows_come_and_go_without_scripts_and_with_them(client: Client) -> None:
    draft = make_draft(shop()[0].id)
    typed = {"line-0-price": "7.77", "window-0-name": "night", "window-0-spans": "nonsense"}
    for headers in ({}, {**HTMX, "HX-Target": "price-editor"}):
        more = client.post(
            address("price-edit", draft), form_of(draft, **typed) | {"do": "add-line"}, headers=headers
        )
        assert more.status_code == 200
        assert more.content.decode().count('data-testid="line-row"') == 3
        assert all(f'value="{value}"' in more.content.decode() for value in typed.values())
        assert ("<html" in more.content.decode()) == (not headers)
        fewer = client.post(
            address("price-edit", draft), form_of(draft, **typed) | {"do": "remove-line-0"}, headers=headers
        )
        assert fewer.content.decode().count('data-testid="line-row"') == 1
        bands = client.post(
            address("price-edit", draft), form_of(draft, **typed) | {"do": "add-window"}, headers=headers
        )
        assert bands.content.decode().count('data-testid="window-row"') == 2
        none = client.post(
            address("price-edit", draft),
            form_of(draft, **typed) | {"do": "remove-window-w0"},
            headers=headers,
        )
        assert 'data-testid="window-row"' not in none.content.decode()
    assert content_of(draft) == EMPTY


def test_somebody_elses_changes_are_not_overwritten_unawares(client: Client) -> None:
    draft = make_draft(shop()[0].id, FLAT)
    stale = form_of(draft)
    client.post(address("price-edit", draft), form_of(draft, **{"line-0-price": "9"}))
    answer = client.post(address("price-edit", draft), stale)
    assert answer.status_code == 422
    assert "Somebody else has saved this draft meanwhile." in text_of(answer)
    assert line("input", 9 * UNIT) in content_of(draft).lines
    [expected] = re.findall(r'name="expected" value="(\w+)"', answer.content.decode())
    assert client.post(address("price-edit", draft), stale | {"expected": expected}).status_code == 302
    assert line("input", UNIT * 5 // 4) in content_of(draft).lines


def test_a_draft_is_discarded_after_a_question(client: Client) -> None:
    draft = make_draft(shop()[0].id, FLAT)
    assert "are deleted" in text_of(client.get(address("price-discard", draft)))
    answer = client.post(address("price-discard", draft), {"reason": "wrong model"}, headers=HTMX)
    assert answer.headers["HX-Redirect"] == reverse("backoffice:prices")
    assert client.get(address("price", draft)).status_code == 404
    with role_scope("operator"):
        event = AuditEvent.objects.get(action="price.discard", target=public_id(PREFIXES["price"], draft))
    assert event.reason == "wrong model"


# --- Reading ---------------------------------------------------------------------------------------


def test_the_board_shows_states_and_filters(client: Client) -> None:
    model, tenant = shop()
    make_draft(model.id, FLAT)
    make_price(model.id, tenant_id=tenant.id)
    board = client.get(address("prices"), {"q": model.slug}).content.decode()
    assert re.findall(r'data-state="(\w+)"', board) == ["IN_FORCE", "IN_FORCE", "DRAFT"]
    part = client.get(
        address("prices"), {"q": model.slug, "only": "drafts"}, headers={**HTMX, "HX-Target": "price-rows"}
    )
    assert "<html" not in part.content.decode()
    assert "No price matches" in text_of(client.get(address("prices"), {"q": "nothing like it"}))
    unpriced = make_model(prices=None)
    assert "Nobody can call it." in text_of(client.get(address("prices"), {"q": unpriced.slug}))
    strange = {"currency": "XYZ", "only": "x", "after": "\0", "organization": "org_"}
    assert client.get(address("prices"), strange).status_code == 200


def test_a_version_stands_beside_what_counts_now_with_its_history(client: Client) -> None:
    model, _ = shop()
    draft = make_draft(model.id, (line("input", UNIT + 1), line("output", UNIT)))
    page = text_of(client.get(address("price", draft)))
    assert "dearer" in page
    assert "cheaper" in page
    assert "price.draft" in page
    assert model.price_version_id is not None
    published = text_of(client.get(address("price", model.price_version_id)))
    assert "by a catalog file" in published
    incomplete = make_draft(model.id)
    shown = text_of(client.get(address("price", incomplete)))
    assert "Input has no price at all times." in shown
    assert "It has no lines yet." in shown


def test_a_published_price_is_copied_into_a_new_draft(client: Client) -> None:
    model, _ = shop()
    assert model.price_version_id is not None
    answer = client.post(address("price-copy", model.price_version_id))
    draft = parse_public_id(PREFIXES["price"], answer.headers["Location"].split("/")[-2])
    assert content_of(draft) == content_of(model.price_version_id)
    assert client.get(address("price-edit", model.price_version_id)).status_code == 404
    assert client.get(address("price-publish", model.price_version_id)).status_code == 404
    assert client.get(address("price-discard", model.price_version_id)).status_code == 404


# --- The what-if -----------------------------------------------------------------------------------


def test_the_what_if_shows_progress_results_and_a_file(client: Client) -> None:
    model, tenant = shop()
    use(tenant, model, USES)
    draft = make_draft(model.id, (line("input", 3 * UNIT), line("output", 3 * UNIT)))
    assert client.get(address("price-what-if-csv", draft)).status_code == 404
    asked = client.post(address("price-what-if", draft), headers=HTMX)
    assert 'data-state="WAITING"' in asked.content.decode()
    assert 'hx-trigger="every 1s"' in asked.content.decode()
    with role_scope("operator"):
        replay = PriceReplay.objects.get(version_id=draft)
        replays._next_day(replay.id, utc_now(), None)
    running = client.get(address("price-what-if", draft), headers=HTMX)
    assert "1 of 30 days" in text_of(running)
    with role_scope("operator"):
        replays.run_replay(replay_id=replay.id, now=utc_now(), cost_of=lambda *_: 1000)
    done = client.get(address("price-what-if", draft), headers=HTMX)
    assert 'data-state="DONE"' in done.content.decode()
    assert tenant.public_id in done.content.decode()
    assert "1 pay more" in text_of(done)
    assert "hx-trigger" not in done.content.decode()
    file = client.get(address("price-what-if-csv", draft))
    body = b"".join(file.streaming_content).decode()  # type: ignore[attr-defined]
    assert tenant.public_id in body
    client.post(address("price-edit", draft), form_of(draft))
    assert "Of an earlier draft" in text_of(client.get(address("price", draft)))
    plain = client.post(address("price-what-if", draft))
    assert plain.status_code == 302


def test_the_what_if_of_an_incomplete_draft_is_not_offered(client: Client) -> None:
    draft = make_draft(shop()[0].id)
    assert 'data-testid="what-if-run"' not in client.get(address("price", draft)).content.decode()
    client.post(address("price-what-if", draft))
    assert 'data-state="NONE"' in client.get(address("price", draft)).content.decode()


# --- Publishing ------------------------------------------------------------------------------------


def test_publishing_proposes_a_monday_and_names_whom_it_reaches(client: Client) -> None:
    model, tenant = shop()
    draft = make_draft(
        model.id, (line("input", 2 * UNIT), line("output", 2 * UNIT)), time_zone="Asia/Shanghai"
    )
    dialog = client.get(address("price-publish", draft), headers=HTMX)
    body = dialog.content.decode()
    [day] = re.findall(r'name="date" value="([\d-]+)"', body)
    assert datetime.fromisoformat(day).weekday() == 0
    local = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Asia/Shanghai"))
    assert local >= utc_now() + timedelta(days=settings.TUNING["SLUICE_PRICE_NOTICE_DAYS"])
    assert 'value="00:00"' in body
    assert 'value="Asia/Shanghai"' in body
    assert "1 organization pays more" in text_of(dialog)
    assert f'href="{reverse("backoffice:tenant", args=[tenant.public_id])}"' in body
    assert "$1.00 → becomes $2.00" in text_of(dialog)
    assert "There is no what-if of this draft" in text_of(dialog)


def test_a_price_is_published_from_a_moment(client: Client) -> None:
    model, tenant = shop()
    draft = make_draft(model.id, FLAT)
    at = (utc_now() + timedelta(days=8)).replace(minute=0, second=0, microsecond=0)
    form = publish_form(at, expected=content_of(draft).sha256)
    checked = client.post(address("price-publish", draft), form | {"do": "check", "reason": ""}, headers=HTMX)
    assert checked.status_code == 200
    assert "1 organization pays the same or less" in text_of(checked)
    answer = client.post(address("price-publish", draft), form)
    assert answer.status_code == 302
    assert version(draft).active_from == at
    assert model.price_version_id is not None
    assert version(model.price_version_id).active_to == at
    with role_scope("operator"):
        event = AuditEvent.objects.get(action="price.publish", target=public_id(PREFIXES["price"], draft))
    assert event.reason == REASON
    page = client.get(address("price", draft))
    assert 'data-state="SCHEDULED"' in page.content.decode()
    assert REASON in text_of(page)
    assert tenant.id is not None


def test_what_cannot_be_published_says_why_and_keeps_what_was_typed(client: Client) -> None:
    model, _ = shop()
    dearer = make_draft(model.id, (line("input", 2 * UNIT), line("output", 2 * UNIT)))
    soon, past = utc_now() + timedelta(hours=2), utc_now() - timedelta(days=1)
    for form, words in (
        (publish_form(past), "Choose a moment from"),
        (publish_form(soon), "Something gets dearer, so it begins at"),
        (publish_form(soon + timedelta(days=30), reason=""), "This field is required."),
        (publish_form(soon, zone="Mars"), "Write the name of a time zone"),
        (
            publish_form(datetime(2027, 3, 28, 2, 30, tzinfo=UTC), zone="Europe/Berlin"),
            "The clocks skip this time",
        ),
        (
            publish_form(soon + timedelta(days=30), expected="0" * 64),
            "Somebody has edited the draft meanwhile.",
        ),
    ):
        answer = client.post(address("price-publish", dearer), form, headers=HTMX)
        assert answer.status_code == 422
        assert words in text_of(answer), words
        assert form["reason"] in answer.content.decode()
    assert version(dearer).published_at is None
    incomplete = client.get(address("price-publish", make_draft(model.id)), headers=HTMX)
    assert "Output has no price at all times." in text_of(incomplete)


def test_a_scheduled_price_is_kept_or_withdrawn(client: Client) -> None:
    model, _ = shop()
    scheduled, draft = make_draft(model.id, FLAT), make_draft(model.id, FLAT)
    at = (utc_now() + timedelta(days=8)).replace(second=0, microsecond=0)
    publish_from(scheduled, at)
    taken = client.post(address("price-publish", draft), publish_form(at), headers=HTMX)
    assert taken.status_code == 422
    assert "begins at this very moment" in text_of(taken)
    before = client.post(
        address("price-publish", draft), publish_form(at - timedelta(days=1)) | {"do": "check"}, headers=HTMX
    )
    assert "where a scheduled price begins" in text_of(before)
    assert client.post(address("price-publish", draft), publish_form(at, replaces="on")).status_code == 302
    assert version(scheduled).active_to == version(scheduled).active_from
    assert 'data-state="WITHDRAWN"' in client.get(address("price", scheduled)).content.decode()


def test_a_private_price_is_ended_in_time(client: Client) -> None:
    model, tenant = shop()
    private = make_price(model.id, tenant_id=tenant.id, prices={"input": 1, "output": 1})
    dialog = client.get(address("price-end", private), headers=HTMX)
    assert "The list is dearer" in text_of(dialog)
    soon = utc_now() + timedelta(hours=2)
    refused = client.post(address("price-end", private), publish_form(soon, do="end"), headers=HTMX)
    assert refused.status_code == 422
    assert "The list is dearer, so the price ends at" in text_of(refused)
    at = (utc_now() + timedelta(days=8)).replace(second=0, microsecond=0)
    checked = client.post(
        address("price-end", private), publish_form(at, do="check", reason=""), headers=HTMX
    )
    assert checked.status_code == 200
    assert client.post(address("price-end", private), publish_form(at, do="end")).status_code == 302
    assert version(private).active_to == at
    assert model.price_version_id is not None
    assert client.get(address("price-end", model.price_version_id)).status_code == 404


def test_nobody_but_operators_sees_prices_pages() -> None:
    model, tenant = shop()
    draft = make_draft(model.id, FLAT)
    owner = signed_in(make_member(tenant, Role.OWNER))
    for name in ("price", "price-edit", "price-publish", "price-what-if", "price-discard", "price-end"):
        assert owner.get(address(name, draft)).status_code == 404, name
    for name in ("price-edit", "price-publish", "price-discard", "price-copy", "price-what-if"):
        assert owner.post(address(name, draft), {"do": "publish"}).status_code == 404, name
    assert version(draft).published_at is None


# --- Local moments ---------------------------------------------------------------------------------


def test_moments_by_local_clocks() -> None:
    night, autumn, spring = time(2, 30), date(2026, 10, 25), date(2027, 3, 28)
    assert local_moment(autumn, night, "Europe/Berlin") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert local_moment(spring, night, "Europe/Berlin") is None
    assert local_moment(spring, night, "Nowhere") is None
    # The ends of the calendar are no days in UTC.
    assert local_moment(date(1, 1, 1), time(), "Asia/Shanghai") is None
    assert local_moment(date(9999, 12, 31), time(23), "America/New_York") is None


@pytest.mark.parametrize(
    ("earliest", "monday"),
    [
        (datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)),
        (datetime(2026, 6, 1, 0, 1, tzinfo=UTC), datetime(2026, 6, 8, tzinfo=UTC)),
        (datetime(2026, 6, 7, 23, tzinfo=UTC), datetime(2026, 6, 8, tzinfo=UTC)),
    ],
)
def test_the_next_monday_is_not_before_the_moment(earliest: datetime, monday: datetime) -> None:
    assert next_monday(earliest, "UTC") == monday
    assert next_monday(earliest, "America/New_York") >= earliest
