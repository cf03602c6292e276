"""Every address that takes an id, tried by people whom it is none of their business.

The list of addresses is the URLconf itself: a new route without a case fails, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.test import Client

from tenants.models import Role
from tenants.permissions import Permission, may
from tests.isolation.cases import (
    ASK_STRIPE,
    BY_THE_COLLEAGUE,
    MALFORMED,
    PUBLIC,
    WITHOUT_STRIPE,
    Case,
    has_case,
    is_for_operators,
    is_for_programs,
    operators_url,
)
from tests.isolation.worlds import AUDIT_LOG, World, digest_of, make_world, unknown_ids
from tests.people import make_member, make_person, signed_in
from tests.routes import Route, every_route

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HTMX = {"HX-Request": "true"}

ROUTES = [route for route in every_route() if not is_for_programs(route)]
CASES = [
    Case(route)
    for route in ROUTES
    if route.arguments and route.name not in PUBLIC and not is_for_operators(route) and has_case(route)
]
OPERATOR_ROUTES = [route for route in ROUTES if is_for_operators(route)]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.route.name)


class Stage(NamedTuple):
    """Somebody with an organization of their own, and the organization that is none of theirs."""

    mine: World
    theirs: World
    stranger: Client
    owner: Client


@pytest.fixture(scope="module")
def stage(database: None) -> Stage:
    mine, theirs = make_world(), make_world()
    # What a view raises is answered with 500 and must be seen as that here.
    return Stage(mine, theirs, signed_in(mine.owner, raises=False), signed_in(theirs.owner, raises=False))


@pytest.fixture(scope="module")
def tried(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """How many addresses were tried, by who tried them; printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    shown = ", ".join(f"{what} {count}" for what, count in counts.items())
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nisolation: {len(ROUTES)} routes, {len(CASES)} of them take ids; tried: {shown}")


def test_every_route_has_a_case_or_a_reason() -> None:
    without = [
        route.name
        for route in ROUTES
        if route.arguments
        and not is_for_operators(route)
        and route.name not in PUBLIC
        and not has_case(route)
    ]
    assert not without, f"routes without a case in tests/isolation/cases.py: {without}"
    unprotected = [case.route.name for case in CASES if case.route.permission is None]
    assert not unprotected, f"pages of an organization that name no permission: {unprotected}"
    known = {route.name for route in ROUTES}
    gone = [name for name in PUBLIC if name not in known]
    assert not gone, f"reasons for routes that are no more: {gone}"


@each_case
def test_a_stranger_finds_nothing(case: Case, stage: Stage, tried: Counter[str]) -> None:
    before = digest_of(stage.theirs.tenant.id)
    url = case.url(stage.theirs.ids)
    for method in METHODS:
        for headers in ({}, HTMX):
            answer = _try(stage.stranger, method, url, case.form(stage.theirs), headers)
            tried["strangers"] += 1
            assert answer.status_code == 404, f"{method} {url} {headers}: {answer.status_code}"
            _assert_discreet(answer, stage.theirs)
    assert digest_of(stage.theirs.tenant.id) == before


@each_case
def test_ids_of_others_are_unknown_at_home(case: Case, stage: Stage, tried: Counter[str]) -> None:
    """One's own organization in the path, and things of another one behind it."""
    if set(case.kinds.values()) == {"organization"}:
        return
    before = digest_of(stage.theirs.tenant.id)
    ids = {**stage.theirs.ids, "organization": stage.mine.ids["organization"]}
    wanted = [case.url({**unknown_ids(), "organization": ids["organization"]})]
    if not {"model", "another_model"} & set(case.kinds.values()):
        # Models belong to the catalog, so everybody's are the same.
        wanted.append(case.url(ids))
    for url in wanted:
        for method in METHODS:
            answer = _try(stage.stranger, method, url, case.form(stage.theirs))
            tried["own organization, others' ids"] += 1
            expected = 404 if method in case.methods else 405
            assert answer.status_code == expected, f"{method} {url}: {answer.status_code}"
            _assert_discreet(answer, stage.theirs)
    assert digest_of(stage.theirs.tenant.id) == before


@each_case
def test_what_is_no_id_is_not_found(case: Case, stage: Stage, tried: Counter[str]) -> None:
    for argument, kind in case.kinds.items():
        for text in MALFORMED:
            url = case.url(stage.mine.ids).replace(quote(stage.mine.ids[kind]), text, 1)
            for method in sorted(case.methods):
                answer = _try(stage.stranger, method, url, case.form(stage.mine))
                tried["malformed"] += 1
                assert answer.status_code == 404, f"{method} {url} ({argument}): {answer.status_code}"


@each_case
def test_whoever_is_not_signed_in_is_asked_to(case: Case, stage: Stage, tried: Counter[str]) -> None:
    before = digest_of(stage.theirs.tenant.id)
    url = case.url(stage.theirs.ids)
    for method in METHODS:
        for headers in ({}, HTMX):
            answer = _try(
                Client(raise_request_exception=False), method, url, case.form(stage.theirs), headers
            )
            tried["anonymous"] += 1
            target = answer.headers.get("HX-Redirect") or answer.headers.get("Location", "")
            asked = target.startswith(settings.LOGIN_URL)
            assert asked or answer.status_code in (404, 405), f"{method} {url}: {answer.status_code}"
            _assert_discreet(answer, stage.theirs)
    assert digest_of(stage.theirs.tenant.id) == before


@each_case
def test_the_owner_gets_there(case: Case, stage: Stage) -> None:
    """The refusals above would mean nothing if nobody was let in. Actions work on a world of their own."""
    if "GET" in case.methods:
        answer = _try(stage.owner, "GET", case.url(stage.theirs.ids), {})
        assert answer.status_code == 200, f"{answer.status_code}: {answer.headers}"
    if "POST" in case.methods:
        world = make_world()
        before = digest_of(world.tenant.id)
        url = case.url(world.ids)
        actor = world.colleague if case.route.name in BY_THE_COLLEAGUE else world.owner
        answer = _try(signed_in(actor), "POST", url, case.form(world))
        if case.route.name in ASK_STRIPE:
            assert answer.status_code in WITHOUT_STRIPE
            return
        assert answer.status_code in (200, 201, 204, 302, 303), (
            f"{answer.status_code} {answer.content[:2000]!r}"
        )
        assert digest_of(world.tenant.id) != before, "the action changed nothing"


@each_case
@pytest.mark.parametrize("role", list(Role))
def test_a_member_may_what_the_table_says(case: Case, role: Role, stage: Stage, tried: Counter[str]) -> None:
    """tenants/permissions.py decides, and docs/roles.md is made of it."""
    assert case.route.permission is not None
    is_allowed = may(role, case.route.permission)
    # What is refused changes nothing, which the digest shows; actions work on a world of their own.
    world = make_world() if is_allowed and "POST" in case.methods else stage.theirs
    client = signed_in(make_member(world.tenant, role), raises=False)
    before = digest_of(world.tenant.id, without=[AUDIT_LOG])
    for method in sorted(case.methods & {"GET", "POST"}):
        answer = _try(client, method, case.url(world.ids), case.form(world))
        tried["roles"] += 1
        if is_allowed:
            is_asked = method == "POST" and case.route.name in ASK_STRIPE
            assert answer.status_code < 400 or (is_asked and answer.status_code in WITHOUT_STRIPE), (
                f"{role} {method}: {answer.status_code}"
            )
        else:
            assert answer.status_code == 403, f"{role} {method}: {answer.status_code}"
    if not is_allowed:
        assert digest_of(world.tenant.id, without=[AUDIT_LOG]) == before


def test_every_permission_opens_something() -> None:
    needed = {case.route.permission for case in CASES}
    # Whether somebody may make or unmake owners is decided by the domain; renaming is a page.
    assert set(Permission) - needed == set()


@pytest.mark.parametrize("route", OPERATOR_ROUTES, ids=lambda route: route.name)
def test_operators_pages_exist_for_operators_only(route: Route, stage: Stage, tried: Counter[str]) -> None:
    url = operators_url(route, stage.theirs)
    if route.name in OPEN_TO_ALL:
        return
    for method in METHODS:
        tried["operators' pages"] += 1
        answer = _try(stage.stranger, method, url, {})
        assert answer.status_code == 404, f"{method} {url}: {answer.status_code}"
        answer = _try(Client(raise_request_exception=False), method, url, {})
        asked = answer.headers.get("Location", "").startswith((settings.LOGIN_URL, "/admin/login/"))
        assert asked or answer.status_code == 404, f"anonymous {method} {url}: {answer.status_code}"


# Signing in and out happen before anybody is an operator; the script of translations holds no data.
OPEN_TO_ALL = frozenset({"admin:login", "admin:logout", "admin:jsi18n"})


def _try(
    client: Client, method: str, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    data = form if method == "POST" else None
    request = getattr(client, method.lower())
    answer: HttpResponse = (
        request(url, data=data, headers=dict(headers or {}))
        if data is not None
        else request(url, headers=dict(headers or {}))
    )
    if getattr(answer, "streaming", False):
        # A download that is never read would keep what it reads from open.
        b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    return answer


def _assert_discreet(answer: HttpResponseBase, world: World) -> None:
    if not isinstance(answer, HttpResponse):
        return
    text = answer.content.decode(errors="replace")
    assert not [word for word in world.private_words if word in text]


def test_pages_that_belong_to_nobody_in_particular_say_nothing_of_others(stage: Stage) -> None:
    """Routes without arguments, as the stranger: whatever they show, it is not the other organization's."""
    person = signed_in(make_person("passer-by"), raises=False)
    for route in ROUTES:
        if (
            not route.arguments
            and not is_for_operators(route)
            and route.name not in {"accounts:mailbox", "metrics"}
        ):
            answer = person.get(route.url({}))
            assert answer.status_code < 500, f"{route.name}: {answer.status_code}"
            _assert_discreet(answer, stage.theirs)
