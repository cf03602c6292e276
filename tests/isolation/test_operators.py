"""Every operators' address that changes something, tried by those who may not: refused, and written down.

The list of addresses is the URLconf itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from portal.backoffice.tests.people import make_operator, signed_in_operator
from tenants.models import Membership, Role
from tenants.scope import role_scope
from tests.database import rows_of
from tests.isolation.cases import is_for_operators, operators_url
from tests.isolation.worlds import AUDIT_LOG, World, digest_of, make_world
from tests.people import Person, add_member, make_person, signed_in
from tests.routes import Route, every_route

ROUTES = [route for route in every_route() if is_for_operators(route)]
PAGES = [route for route in ROUTES if route.name.startswith("backoffice:")]
CHANGING = [route for route in PAGES if "POST" in (route.methods or {"POST"})]
# What the Django admin offers changes nothing, whoever asks; it stands behind the same door.
ADMIN = [route for route in ROUTES if route not in PAGES and route.name != "admin:jsi18n"]
UNSAFE = ("POST", "DELETE")
HTMX = {"HX-Request": "true"}
each_change = pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)


@pytest.fixture(scope="module")
def world(database: None) -> World:
    return make_world()


@pytest.fixture(scope="module")
def tried(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """How many addresses were tried, by who tried them; printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    shown = ", ".join(f"{what} {count}" for what, count in counts.items())
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\noperators: {len(PAGES)} pages, {len(CHANGING)} of them change something; tried: {shown}")


def test_every_page_of_operators_says_which_methods_it_answers() -> None:
    silent = [route.name for route in PAGES if route.methods is None and route.name != "backoffice:witness"]
    assert not silent, f"operators' pages without operator_page(): {silent}"
    assert len(CHANGING) > 10


@each_change
def test_an_expired_session_changes_nothing(route: Route, world: World, tried: Counter[str]) -> None:
    operator = make_operator()
    client = signed_in_operator(operator, proven_ago_s=settings.TUNING["SLUICE_ELEVATED_S"] + 1)
    url, before = operators_url(route, world), digest_of(world.tenant.id, without=[AUDIT_LOG])
    for method in UNSAFE:
        for headers in ({}, HTMX):
            answer = _send(client, method, url, headers)
            tried["expired sessions"] += 1
            assert answer.status_code == 403, f"{method} {url} {headers}: {answer.status_code}"
    assert digest_of(world.tenant.id, without=[AUDIT_LOG]) == before
    refused = _refusals_of(operator.person)
    assert len(refused) == 2 * len(UNSAFE)
    name = route.name.removeprefix("backoffice:").replace("-", "_")
    assert {event["action"] for event in refused} == {f"operator.{name}"}
    assert {event["tenant_id"] for event in refused} <= {None, world.tenant.id}


@each_change
def test_members_find_nothing_there(route: Route, world: World, tried: Counter[str]) -> None:
    url, before = operators_url(route, world), digest_of(world.tenant.id)
    people = {role: make_person(role.value.lower()) for role in (Role.VIEWER, Role.DEVELOPER)}
    for role, person in people.items():
        membership_id = add_member(world.tenant, person, role)
        client = signed_in(person, raises=False)
        for method in UNSAFE:
            answer = _send(client, method, url, {})
            tried[role.value] += 1
            assert answer.status_code == 404, f"{role} {method} {url}: {answer.status_code}"
        with role_scope("operator"):
            Membership.objects.filter(id=membership_id).delete()
        events = _refusals_of(person)
        assert [event["actor_kind"] for event in events] == ["MEMBER"] * len(UNSAFE)
        assert {event["tenant_id"] for event in events} == {None}
    assert digest_of(world.tenant.id) == before


def test_the_admin_stands_behind_the_same_door(world: World, tried: Counter[str]) -> None:
    client = signed_in_operator(make_operator(), proven_ago_s=settings.TUNING["SLUICE_ELEVATED_S"] + 1)
    before = digest_of(world.tenant.id)
    for route in ADMIN:
        url = operators_url(route, world)
        assert client.post(url).status_code == 403, url
        tried["the admin"] += 1
    assert digest_of(world.tenant.id) == before


def _send(client: Client, method: str, url: str, headers: dict[str, str]) -> HttpResponse:
    answer: HttpResponse = getattr(client, method.lower())(url, headers=headers)
    return answer


def _refusals_of(person: Person) -> list[dict[str, object]]:
    return rows_of("tenants_auditevent", actor_id=person.id, outcome="REFUSED")
