"""The Django admin: every table is there, no secret is, and nothing can be changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connections, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.backoffice.admin import SHOWN_ELSEWHERE
from portal.backoffice.read_only import MAX_COUNTED, ReadOnlyAdmin
from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.ids import PREFIXES, public_id
from quotas.admission import admit_batch
from quotas.settlement import settle_batch
from tenants.scope import role_scope
from tests.database import blocking, connected
from tests.factories import admission_row, enable, make_model, make_tenant, settlement_row
from tests.people import make_owner

pytestmark = pytest.mark.usefixtures("database")
OURS = ("tenants", "models_catalog", "quotas", "portal")
SECRET = re.compile(
    r"digest|credential|password|secret$|body|session_key|^data$|extra_data|sha256|person_key"
)


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


def registered() -> list[type[models.Model]]:
    return sorted(admin.site._registry, key=lambda model: model._meta.label)


def test_every_table_of_ours_is_shown_or_says_where() -> None:
    concrete = {
        model for label in OURS for model in apps.get_app_config(label).get_models() if not model._meta.proxy
    }
    assert concrete == {model for model in registered() if model._meta.app_label in OURS} | set(
        SHOWN_ELSEWHERE
    )
    assert all(isinstance(model._meta.pk, models.CompositePrimaryKey) for model in SHOWN_ELSEWHERE)


def test_of_other_apps_only_what_was_chosen_is_shown() -> None:
    others = {model._meta.label for model in registered() if model._meta.app_label not in OURS}
    assert others == {
        "account.EmailAddress",
        "mfa.Authenticator",
        "socialaccount.SocialAccount",
        "usersessions.UserSession",
    }


def _address(model: type[models.Model], page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


@pytest.fixture(scope="module")
def request_id(database: None) -> str:
    """Something in the tables that matter; the request's id."""
    tenant, _ = make_owner(granted="2.00", paid="1.00")
    model = make_model()
    enable(tenant, model)
    row = admission_row(tenant, model)
    with connected("dataplane") as connection:
        blocking(admit_batch, connection, [row], lease_s=20, block_ms=1000)
        settled = settlement_row(row, prompt_tokens=7, completion_tokens=3)
        blocking(settle_batch, connection, [settled], block_ms=1000)
    return str(row.request_id)


@pytest.mark.parametrize("model", registered(), ids=lambda model: model._meta.label)
def test_each_list_and_page_is_shown_without_secrets_and_without_inline_code(
    model: type[models.Model], client: Client, request_id: str
) -> None:
    shown = admin.site._registry[model]
    assert isinstance(shown, ReadOnlyAdmin)
    pages = [client.get(_address(model, "changelist"))]
    with role_scope("operator"):
        first = model._default_manager.values_list("pk", flat=True).first()
    if first is not None and not shown.is_list_only:
        pages.append(client.get(_address(model, "change", first)))
    fields = shown.get_fields(None)  # type: ignore[arg-type]
    assert fields
    assert not [name for name in [*fields, *shown.list_display] if SECRET.search(str(name))]
    for page in pages:
        assert page.status_code == 200
        text = page.content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
        assert 'name="_save"' not in text
        assert "deletelink" not in text


@pytest.mark.parametrize("model", registered(), ids=lambda model: model._meta.label)
def test_nothing_can_be_added_changed_or_deleted(
    model: type[models.Model], client: Client, request_id: str
) -> None:
    with role_scope("operator"):
        first = model._default_manager.values_list("pk", flat=True).first()
    addresses = [_address(model, "add"), _address(model, "changelist")]
    if first is not None and not admin.site._registry[model].is_list_only:  # type: ignore[attr-defined]
        addresses += [_address(model, "change", first), _address(model, "delete", first)]
    answers = [
        client.post(address, {"action": "delete_selected", "_selected_action": str(first)})
        for address in addresses
    ]
    assert {answer.status_code for answer in answers} <= {403, 200, 302}
    assert answers[0].status_code == 403
    assert all(answer.status_code == 403 for answer in answers[2:])
    if first is not None:
        with role_scope("operator"):
            assert model._default_manager.filter(pk=first).exists()


def test_a_request_shows_its_attempts_and_usage_and_a_transfer_its_entries(
    client: Client, request_id: str
) -> None:
    page = client.get(f"/admin/quotas/inferencerequest/{request_id}/change/").content.decode()
    assert "<td>COMPLETED</td>" in page
    assert "<td>FINAL_USAGE</td>" in page
    with connected("operator") as connection:
        transfer = connection.execute(
            "SELECT id, tenant_id FROM quotas_ledgertransfer WHERE request_id = %s", (request_id,)
        ).fetchone()
    assert transfer is not None
    assert (
        "<td>-13000</td>"
        in client.get(f"/admin/quotas/ledgertransfer/{transfer[0]}/change/").content.decode()
    )
    wallet = client.get(f"/admin/quotas/wallet/{transfer[1]}/change/").content.decode()
    assert "<td>13000</td>" in wallet


def test_lists_are_searched_by_id(client: Client, request_id: str) -> None:
    from uuid import UUID

    tenant = make_tenant()
    other = make_tenant()
    page = client.get(f"/admin/tenants/tenant/?q={tenant.public_id}").content.decode()
    assert str(tenant.id) in page
    assert str(other.id) not in page
    spelled = public_id(PREFIXES["request"], UUID(request_id))
    assert request_id in client.get(f"/admin/quotas/inferencerequest/?q={spelled}").content.decode()
    assert client.get("/admin/quotas/inferencerequest/?q=nonsense").status_code == 200
    assert client.get(f"/admin/models_catalog/catalogrevision/?q={request_id}").status_code == 200
    assert str(tenant.key.id) in client.get(f"/admin/tenants/apikey/?q={tenant.public_id}").content.decode()


def test_no_list_counts_to_the_end(client: Client) -> None:
    with CaptureQueriesContext(connections["operator"]) as captured:
        for model in registered():
            assert client.get(_address(model, "changelist")).status_code == 200
            assert client.get(_address(model, "changelist") + "?_facets=True").status_code in (200, 302)
    counts = [query["sql"] for query in captured if "COUNT(" in query["sql"]]
    assert counts
    assert all(f"LIMIT {MAX_COUNTED}" in sql for sql in counts)


def test_secrets_are_not_even_read(client: Client) -> None:
    with CaptureQueriesContext(connections["operator"]) as captured:
        for model in registered():
            client.get(_address(model, "changelist"))
    columns = re.findall(r'"(\w+)"\."(\w+)"', " ".join(query["sql"] for query in captured))
    read = {f"{table}.{column}" for table, column in columns if SECRET.search(column)}
    assert read <= {"django_session.session_data"}


def test_an_address_cannot_ask_about_what_is_hidden(client: Client) -> None:
    """Else one would guess a secret sign by sign, from which lists are empty."""
    asked = 0
    for model in registered():
        shown = admin.site._registry[model]
        assert isinstance(shown, ReadOnlyAdmin)
        for name in shown.unread():
            for lookup in (name, f"{name}__startswith", f"{name}__isnull"):
                answer = client.get(_address(model, "changelist"), {lookup: "1"})
                assert answer.status_code == 400, f"{model._meta.label} {lookup}"
                asked += 1
    assert asked >= 30
    assert client.get("/admin/tenants/user/", {"is_staff__exact": "1"}).status_code == 200
    assert client.get("/admin/tenants/apikey/", {"purpose": "API"}).status_code == 200
