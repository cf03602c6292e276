"""API keys in the browser: the secret in one answer and nowhere else, and who may do what to which key."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session

from models_catalog import allow_lists
from models_catalog import operations as catalog_operations
from portal.console.tests.people import HTMX, Stage, open_stage, text_of
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.secrets import parse_api_key
from tenants import operations, queries
from tenants.models import Role
from tenants.queries import KeyRow, KeyState
from tenants.scope import role_scope, tenant_scope
from tests.factories import make_model

NEW = {"expires": "never", "access": "all"}
"""What the form sends when nobody touches it."""

TOKEN = re.compile(r"slc_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9A-Za-z]{49}")


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def give_model(stage: Stage) -> str:
    model = make_model()
    with role_scope("operator"):
        catalog_operations.enable_model(tenant_id=stage.tenant_id, slug=model.slug)
    return model.slug


def make_key(stage: Stage, name: str = "batch", **options: Any) -> str:
    assert settings.SECRET_STORE is not None
    with role_scope("operator"):
        issued = operations.create_api_key(
            tenant_id=stage.tenant_id, name=name, secrets=settings.SECRET_STORE, now=utc_now(), **options
        )
    return public_id(PREFIXES["api_key"], issued.id)


def keys_of(stage: Stage) -> list[KeyRow]:
    with tenant_scope(stage.tenant_id):
        return queries.list_api_keys(tenant_id=stage.tenant_id, now=utc_now())


def listed(stage: Stage, key_id: UUID) -> tuple[str, ...]:
    with tenant_scope(stage.tenant_id):
        return allow_lists.models_of_keys(tenant_id=stage.tenant_id, key_ids=[key_id]).get(key_id, ())


def test_without_keys_the_page_says_what_comes_next(stage: Stage) -> None:
    page = stage.get("keys")
    assert page.status_code == 200
    assert 'data-testid="keys-empty"' in text_of(page)
    assert page["Cache-Control"] == "no-store, private"


@pytest.mark.parametrize("htmx", [True, False])
def test_the_secret_is_in_one_answer_and_nowhere_else(
    stage: Stage, htmx: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    slug = give_model(stage)
    made = stage.post(
        "key-new", data={**NEW, "name": "nightly", "expires": "30", "labels": "team=search\n"}, htmx=htmx
    )
    assert made.status_code == 200
    body = unescape(text_of(made))
    tokens = TOKEN.findall(body)
    assert len(set(tokens)) == 1
    token = tokens[0]
    assert f'data-testid="key-secret">{token}</code>' in body
    assert f"API_BASE={settings.API_BASE}\nAPI_KEY={token}\nMODEL={slug}</code>" in body
    assert f'-H "Authorization: Bearer {token}"' in body
    assert 'data-testid="key-secret-close"' in body
    assert made["Cache-Control"] == "no-store, private"
    if htmx:
        assert made["HX-Retarget"] == "#key-dialogs"
        assert "data-dialog-deliberate" in body
        assert "<html" not in body
    else:
        assert "<html" in body
    # Headers, cookies, the session and every later page are without it.
    assert token not in str(made.headers)
    assert token not in caplog.text
    assert token not in str(made.cookies)
    assert all(token not in str(one.get_decoded()) for one in Session.objects.all())
    for page in (stage.get("keys"), stage.get("keys", query={"state": "all"})):
        assert token not in text_of(page)
        assert "nightly" in text_of(page)
    (key,) = keys_of(stage)
    assert parse_api_key(token).key_id == key.id
    assert key.labels == {"team": "search"}
    assert key.created_by_email == stage.owner.email
    assert key.expires_at is not None
    assert timedelta(days=29) < key.expires_at - utc_now() <= timedelta(days=30)


def test_what_was_typed_comes_back_with_the_errors(stage: Stage) -> None:
    slug = give_model(stage)
    answer = stage.post(
        "key-new",
        data={
            "name": "x" * 101,
            "labels": "team search",
            "access": "listed",
            "models": [slug],
            "expires": "date",
            "expires_on": "2020-01-01",
        },
        htmx=True,
    )
    assert answer.status_code == 422
    body = unescape(text_of(answer))
    assert "<html" not in body
    # The answer takes the place of the dialog's content, heading and all.
    dialog = text_of(stage.get("keys")).partition('<div id="key-dialog-body">')[2]
    assert body.count("dialog-head") == 1
    assert dialog.lstrip().startswith('<div class="dialog-head">')
    assert "x" * 101 in body
    assert "team search</textarea>" in body
    assert "Line 1 is not of the form name=value." in body
    assert "Choose a date from today on" in body
    assert re.search(rf'value="{re.escape(slug)}"[^>]*checked', body)
    assert keys_of(stage) == []


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("=x", "Line 1 is not of the form"),
        ("a=1\na=2", "Line 2 repeats the name"),
        ("a=" + "x" * 65, "at most 64 characters"),
        ("\n".join(f"n{number}=v" for number in range(17)), "at most 16 labels"),
    ],
)
def test_labels_are_checked_line_by_line(stage: Stage, labels: str, complaint: str) -> None:
    answer = stage.post("key-new", data={**NEW, "name": "k", "labels": labels})
    assert answer.status_code == 422
    assert complaint in unescape(text_of(answer))


def test_an_allow_list_needs_models_that_are_enabled(stage: Stage) -> None:
    _, second = give_model(stage), give_model(stage)
    elsewhere = make_model().slug
    for ticked in ([], [elsewhere], [second, elsewhere]):
        answer = stage.post("key-new", data={**NEW, "name": "k", "access": "listed", "models": ticked})
        assert answer.status_code == 422
    for access in ("", "every"):
        assert stage.post("key-new", data={**NEW, "name": "k", "access": access}).status_code == 422
    assert keys_of(stage) == []
    made = stage.post("key-new", data={**NEW, "name": "k", "access": "listed", "models": [second]})
    assert f"MODEL={second}" in unescape(text_of(made))
    (key,) = keys_of(stage)
    assert key.restricts_models
    assert listed(stage, key.id) == (second,)


def test_a_key_is_edited_narrowed_and_widened(stage: Stage) -> None:
    slug = give_model(stage)
    key = make_key(stage)
    form = stage.get("key-edit", key, headers=HTMX)
    assert form.status_code == 200
    assert 'value="batch"' in text_of(form)
    narrowed = stage.post(
        "key-edit", key, data={"name": "b2", "labels": "a=b", "access": "listed", "models": [slug]}, htmx=True
    )
    assert narrowed["HX-Refresh"] == "true"
    (row,) = keys_of(stage)
    assert (row.name, row.labels, row.restricts_models) == ("b2", {"a": "b"}, True)
    assert listed(stage, row.id) == (slug,)
    widened = stage.post(
        "key-edit", key, data={"name": "b2", "labels": "", "access": "all", "models": [slug]}
    )
    assert widened.status_code == 302
    (row,) = keys_of(stage)
    assert (row.labels, row.restricts_models) == ({}, False)
    assert listed(stage, row.id) == ()
    assert "is saved" in text_of(stage.get("keys"))


def test_rotating_shows_the_successors_secret_once(stage: Stage) -> None:
    key = make_key(stage)
    question = stage.get("key-rotate", key)
    assert "24 hours" in text_of(question)
    rotated = stage.post("key-rotate", key, htmx=True)
    assert rotated["Cache-Control"] == "no-store, private"
    tokens = set(TOKEN.findall(text_of(rotated)))
    assert len(tokens) == 1
    states = {row.public_id: row.state for row in keys_of(stage)}
    assert states[key] == KeyState.REPLACED
    assert len(states) == 2
    again = stage.post("key-rotate", key, htmx=True)
    assert again.status_code == 422
    assert not TOKEN.search(text_of(again))
    assert "rotated already" in text_of(again)


def test_revoking_asks_for_the_name(stage: Stage) -> None:
    key = make_key(stage, "prod & <b>")
    question = text_of(stage.get("key-revoke", key, headers=HTMX))
    assert 'data-confirm-name="prod &amp; &lt;b&gt;"' in question
    assert "<b>" not in question.replace("<strong>", "")
    wrong = stage.post("key-revoke", key, data={"confirm": "prod"}, htmx=True)
    assert wrong.status_code == 422
    assert keys_of(stage)[0].is_live
    right = stage.post("key-revoke", key, data={"confirm": " prod & <b> "})
    assert right.status_code == 302
    assert keys_of(stage)[0].state == KeyState.REVOKED
    # An ended key is not there any more for whoever wants to change it.
    for name in ("key-edit", "key-rotate", "key-revoke"):
        assert stage.get(name, key).status_code == 404
        assert stage.post(name, key).status_code == 404
    assert key not in text_of(stage.get("keys"))
    assert key in text_of(stage.get("keys", query={"state": "ended"}))


def test_filters_are_in_the_address_and_answer_rows_to_htmx(stage: Stage) -> None:
    wanted = make_key(stage, "search", labels={"team": "blue"})
    other = make_key(stage, "batch")
    for text in ("SEAR", "team=blue", wanted):
        page = text_of(stage.get("keys", query={"q": text}))
        assert f'data-key="{wanted}"' in page
        assert f'data-key="{other}"' not in page
    rows = stage.get("keys", query={"q": "none such"}, headers={**HTMX, "HX-Target": "key-rows"})
    assert "<html" not in text_of(rows)
    assert "No key matches" in text_of(rows)
    assert "HX-Request" in rows["Vary"]


def test_keys_of_the_playground_are_not_listed(stage: Stage) -> None:
    assert settings.SECRET_STORE is not None
    with tenant_scope(stage.tenant_id):
        chat = operations.playground_key(
            tenant_id=stage.tenant_id, user_id=stage.owner.id, secrets=settings.SECRET_STORE, now=utc_now()
        )
    key = public_id(PREFIXES["api_key"], chat.id)
    assert key not in text_of(stage.get("keys", query={"state": "all"}))
    assert stage.post("key-revoke", key, data={"confirm": "Playground"}).status_code == 404


def test_keys_of_others_and_ids_that_are_none_do_not_exist(stage: Stage) -> None:
    foreign = make_key(open_stage(), "theirs")
    for key in (foreign, public_id(PREFIXES["api_key"], uuid7()), "key_x", "req_1", "\0"):
        for name in ("key-edit", "key-rotate", "key-revoke"):
            for answer in (stage.get(name, key), stage.post(name, key, data={"confirm": "theirs"})):
                assert answer.status_code == 404
                assert "theirs" not in text_of(answer)


def test_viewers_see_keys_and_change_none(stage: Stage) -> None:
    key = make_key(stage)
    viewer = stage.as_role(Role.VIEWER)
    page = text_of(viewer.get("keys"))
    assert f'data-key="{key}"' in page
    for hook in ("key-new", "key-revoke", "key-rotate", "key-edit", "key-dialog"):
        assert f'data-testid="{hook}"' not in page
    assert viewer.get("key-new").status_code == 403
    assert viewer.post("key-revoke", key, data={"confirm": "batch"}).status_code == 403
    assert keys_of(stage)[0].is_live
    assert stage.as_role(Role.BILLING).get("keys").status_code == 403


def test_too_many_keys_is_said_at_the_form(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.operations.keys.MAX_KEYS_PER_TENANT", 1)
    make_key(stage)
    answer = stage.post("key-new", data={**NEW, "name": "one more"})
    assert answer.status_code == 422
    assert "at most 500 keys" in text_of(answer)
    assert "one more" in text_of(answer)


def test_the_last_use_is_shown(stage: Stage) -> None:
    make_key(stage)
    assert ">Never</span>" in text_of(stage.get("keys"))
