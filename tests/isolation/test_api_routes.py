"""Every operation of the management API, tried with keys that are none of its business.

The list of operations is the API's description, and that it has all addresses is tested first.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.test import Client

from tenants.models import OPERATOR_SCOPES, Role
from tenants.permissions import Permission, may
from tests.database import rows_of
from tests.isolation.api_cases import (
    NOT_OPERATIONS,
    ApiCase,
    ApiWorld,
    digest_around,
    every_case,
    has_case,
    make_api_world,
    nothing_known,
    operator_token,
    prepare,
)
from tests.isolation.cases import MALFORMED, is_for_programs
from tests.isolation.worlds import digest_of
from tests.routes import every_route

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")
ROUTES = [route for route in every_route() if is_for_programs(route)]
CASES = [case for case in every_case() if has_case(case) and not case.is_operators]
WITH_IDS = [case for case in CASES if case.arguments]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_with_ids = pytest.mark.parametrize("case", WITH_IDS, ids=lambda case: case.id)
# What is written while a key is used, whether the call succeeds or not.
KEPT_OF_USE = {"tenants_managementkey", "tenants_auditevent"}


class Stage(NamedTuple):
    """Two organizations, and keys of one of them with each role."""

    mine: ApiWorld
    theirs: ApiWorld
    tokens: Mapping[Role, str]


@pytest.fixture(scope="module")
def stage(database: None) -> Stage:
    theirs = make_api_world()
    return Stage(make_api_world(), theirs, {role: theirs.token_of(role) for role in Role})


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One person tries everything here, with one key: more often a minute than a key may call, and more
    often an hour than the audit log cares to write down."""
    monkeypatch.setattr("tenants.operations.audit.MAX_REFUSALS_PER_HOUR", 10_000)
    monkeypatch.setitem(settings.TUNING, "SLUICE_API_LIMIT_RPM", 100_000)


@pytest.fixture(scope="module")
def tried(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """How many calls were tried, by who tried them; printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    shown = ", ".join(f"{what} {count}" for what, count in counts.items())
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nisolation: {len(every_case())} operations, {len(WITH_IDS)} take ids; tried: {shown}")


def _plain(pattern: str) -> str:
    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", pattern)


def test_every_address_is_described_and_has_a_case() -> None:
    described = {case.path for case in every_case()}
    missing = [
        route.name
        for route in ROUTES
        if route.name not in NOT_OPERATIONS and _plain(route.pattern) not in described
    ]
    assert not missing, f"addresses that the description does not have: {missing}"
    without = [case.id for case in every_case() if not has_case(case)]
    assert not without, f"operations without a case in tests/isolation/api_cases.py: {without}"
    known = {route.name for route in ROUTES}
    assert not [name for name in NOT_OPERATIONS if name not in known]


@each_with_ids
def test_a_strangers_key_finds_nothing(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    before = digest_of(stage.theirs.world.tenant.id)
    wanted = [case.url(nothing_known())]
    if case.is_of_somebody:
        wanted.append(case.url(stage.theirs.ids))
    for url in wanted:
        answer = _try(stage.mine.token, case.method, url, case.body(stage.theirs.ids))
        tried["strangers"] += 1
        assert answer.status_code == 404, f"{case.method} {url}: {answer.status_code}"
        assert answer.json()["code"] == "not-found"
        _assert_discreet(answer, stage.theirs)
    assert digest_of(stage.theirs.world.tenant.id) == before


@each_case
def test_what_a_stranger_gets_is_their_own(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    """Addresses without ids answer everybody with what is theirs."""
    if case.arguments or case.is_write:
        return
    answer = _try(stage.mine.token, case.method, case.path, None)
    tried["lists"] += 1
    assert answer.status_code == 200
    _assert_discreet(answer, stage.theirs)
    for kind in ("api_key", "request", "limit", "organization"):
        assert stage.theirs.ids[kind] not in answer.content.decode(), kind


@each_with_ids
def test_what_is_no_id_is_not_found(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    for kind in case.kinds.values():
        for text in MALFORMED:
            url = case.url(stage.mine.ids).replace(stage.mine.ids[kind], text, 1)
            answer = _try(stage.mine.token, case.method, url, case.body(stage.mine.ids))
            tried["malformed"] += 1
            assert answer.status_code == 404, f"{case.method} {url}: {answer.status_code}"
            assert answer["Content-Type"] == "application/problem+json"


@each_case
def test_without_a_key_nothing_opens(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    before = digest_of(stage.theirs.world.tenant.id)
    url = case.url(stage.theirs.ids)
    for method in METHODS:
        for token in (None, stage.theirs.world.tenant.key.token):
            answer = _try(token, method, url, case.body(stage.theirs.ids))
            tried["without a key"] += 1
            assert answer.status_code == 401, f"{method} {url}: {answer.status_code}"
            _assert_discreet(answer, stage.theirs)
    assert digest_of(stage.theirs.world.tenant.id) == before


@each_case
def test_other_methods_are_none(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    taken = {one.method for one in every_case() if one.path == case.path}
    taken |= {"HEAD"} if "GET" in taken else set()
    for method in METHODS:
        if method not in taken:
            answer = _try(stage.mine.token, method, case.url(stage.mine.ids), None)
            tried["other methods"] += 1
            assert answer.status_code == 405, f"{method} {case.path}: {answer.status_code}"
            assert set(answer["Allow"].split(", ")) == taken


@each_case
@pytest.mark.parametrize("role", list(Role))
def test_a_key_may_what_its_role_may(case: ApiCase, role: Role, stage: Stage, tried: Counter[str]) -> None:
    """And what it may not is refused, changes nothing, and is in the audit log."""
    tried["roles"] += 1
    allowed = may(role, Permission(case.permission))
    world, token = stage.theirs, stage.tokens[role]
    if allowed and case.is_write:
        # Actions work on a world of their own.
        world = make_api_world()
        token = world.token_of(role)
    tenant_id = world.world.tenant.id
    before, refused = _digest(world) if case.is_write else {}, _refusals(tenant_id)
    answer = _try(token, case.method, case.url(world.ids), case.body(world.ids))
    changed = case.is_write and _digest(world) != before
    if allowed:
        assert answer.status_code in (200, 201), f"{answer.status_code}: {answer.content[:500]!r}"
        assert changed == case.is_write
        return
    assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")
    assert not changed
    (event,) = _refusals(tenant_id)[len(refused) :]
    assert event["actor_role"] == role.value
    assert event["key_id"] is not None
    assert event["reason"]


OPERATORS_CASES = [case for case in every_case() if has_case(case) and case.is_operators]
each_of_operators = pytest.mark.parametrize("case", OPERATORS_CASES, ids=lambda case: case.id)


@each_of_operators
def test_organizations_keys_open_nothing_of_operators(
    case: ApiCase, stage: Stage, tried: Counter[str]
) -> None:
    before, refused = _digest(stage.theirs), _refusals(stage.mine.world.tenant.id)
    for url in (case.url(stage.theirs.ids), case.url(nothing_known())):
        answer = _try(stage.mine.token, case.method, url, case.body(stage.theirs.ids))
        tried["operators' addresses"] += 1
        assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed"), url
        _assert_discreet(answer, stage.theirs)
        answer = _try(None, case.method, url, case.body(stage.theirs.ids))
        assert answer.status_code == 401, url
    assert _digest(stage.theirs) == before
    assert len(_refusals(stage.mine.world.tenant.id)) == len(refused) + 2


@each_of_operators
def test_an_operators_key_needs_the_scope(case: ApiCase, tried: Counter[str]) -> None:
    """And with it finds what is there, and changes it."""
    world = make_api_world()
    prepare(case, world)
    others = tuple(scope for scope in OPERATOR_SCOPES if scope.value != case.scope)
    before = _digest(world)
    answer = _try(operator_token(others), case.method, case.url(world.ids), case.body(world.ids))
    assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")
    assert _digest(world) == before
    answer = _try(operator_token(), case.method, case.url(world.ids), case.body(world.ids))
    tried["operators"] += 2
    assert answer.status_code in (200, 201), f"{answer.status_code}: {answer.content[:500]!r}"
    assert (_digest(world) != before) == case.is_write


@each_of_operators
def test_operators_ids_that_are_none_are_not_found(case: ApiCase, stage: Stage, tried: Counter[str]) -> None:
    if not case.arguments:
        return
    wanted = [case.url(nothing_known())]
    for kind in case.kinds.values():
        wanted += [case.url(stage.mine.ids).replace(stage.mine.ids[kind], text, 1) for text in MALFORMED]
    for url in wanted:
        answer = _try(operator_token(), case.method, url, case.body(stage.mine.ids))
        tried["operators, no ids"] += 1
        assert answer.status_code == 404, f"{case.method} {url}: {answer.status_code}"


def test_an_operators_key_opens_nothing_of_an_organization(stage: Stage, tried: Counter[str]) -> None:
    for case in CASES:
        answer = _try(operator_token(), case.method, case.url(stage.theirs.ids), case.body(stage.theirs.ids))
        tried["operators at organizations' addresses"] += 1
        assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed"), case.id


def _refusals(tenant_id: Any) -> list[dict[str, Any]]:
    events = rows_of("tenants_auditevent", tenant_id=tenant_id, outcome="REFUSED")
    return sorted(events, key=lambda event: str(event["id"]))


def _digest(world: ApiWorld) -> dict[str, str]:
    return {table: one for table, one in digest_around(world).items() if table not in KEPT_OF_USE}


def _try(token: str | None, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
    client = Client(raise_request_exception=False)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is None or method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        return client.generic(method, url, headers=headers)
    return client.generic(method, url, json.dumps(body), content_type="application/json", headers=headers)


def _assert_discreet(answer: Any, world: ApiWorld) -> None:
    text = answer.content.decode(errors="replace")
    assert not [word for word in world.world.private_words if word in text]
