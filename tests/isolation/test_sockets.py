"""Every socket, opened by people whom it is none of their business."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from portal.backoffice.tests.people import make_operator, signed_in_operator
from tenants.models import Role
from tenants.permissions import Permission, may
from tests.isolation.cases import ARGUMENT_KINDS, MALFORMED
from tests.isolation.worlds import World, digest_of, make_world, unknown_ids
from tests.people import Person, make_member, session_cookie, signed_in
from tests.routes import every_socket
from tests.web_process import RunningWeb

SIGNED_OUT, NOT_ALLOWED, NOT_FOUND = 4401, 4403, 4404
SOCKETS = every_socket()
OF_MEMBERS = [(pattern, arguments) for pattern, arguments in SOCKETS if "organization" in arguments]
OF_OPERATORS = [pattern for pattern, _ in SOCKETS if pattern.startswith("ws/operator/")]
each_socket = pytest.mark.parametrize(
    ("pattern", "arguments"), OF_MEMBERS, ids=[pattern for pattern, _ in OF_MEMBERS]
)
each_of_operators = pytest.mark.parametrize("path", OF_OPERATORS)


class Stage(NamedTuple):
    mine: World
    theirs: World


@pytest.fixture(scope="module")
def stage(database: None) -> Stage:
    return Stage(make_world(), make_world())


def _path(pattern: str, ids: dict[str, str]) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: ids[ARGUMENT_KINDS[found[1]]], pattern)


def _open(
    web: RunningWeb, path: str, visitor: Person | Client | None, *, origin: str | None = None
) -> ClientConnection:
    """visitor: a person, or a client with a session already."""
    session = session_cookie(visitor) if isinstance(visitor, Person) else _session_of(visitor)
    cookie = {} if session is None else {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session}"}
    return connect(
        f"{web.socket_url}/{path}",
        additional_headers=cookie,
        origin=Origin(origin or web.url),
        proxy=None,
        compression=None,
        open_timeout=10,
        close_timeout=5,
    )


def _session_of(client: Client | None) -> str | None:
    return None if client is None else client.cookies[settings.SESSION_COOKIE_NAME].value


def _refusal(
    web: RunningWeb, path: str, visitor: Person | Client | None, *, origin: str | None = None
) -> int:
    """The code with which a socket is closed at once, or the status of a refused handshake."""
    try:
        with _open(web, path, visitor, origin=origin) as socket:
            socket.recv(timeout=10)
    except ConnectionClosed as closed:
        # 1006 is what a browser calls a connection that was cut without a word.
        return closed.rcvd.code if closed.rcvd else 1006
    except InvalidStatus as refused:
        return refused.response.status_code
    raise AssertionError("the socket stays open and says something")


@pytest.fixture
def unchanged(stage: Stage) -> Iterator[None]:
    before = digest_of(stage.theirs.tenant.id)
    yield
    assert digest_of(stage.theirs.tenant.id) == before


def test_every_argument_of_a_socket_is_known() -> None:
    assert SOCKETS
    assert not [pattern for pattern, arguments in SOCKETS if set(arguments) - set(ARGUMENT_KINDS)]


def test_every_socket_belongs_to_members_or_to_operators() -> None:
    assert len(OF_MEMBERS) + len(OF_OPERATORS) == len(SOCKETS)


@each_socket
def test_strangers_and_what_is_no_id(
    pattern: str, arguments: tuple[str, ...], web: RunningWeb, stage: Stage, unchanged: None
) -> None:
    mine, theirs = stage.mine, stage.theirs
    assert _refusal(web, _path(pattern, theirs.ids), mine.owner) == NOT_FOUND
    assert _refusal(web, _path(pattern, unknown_ids()), mine.owner) == NOT_FOUND
    for text in MALFORMED:
        ids = {**mine.ids, "organization": text}
        assert _refusal(web, _path(pattern, ids), mine.owner) in (NOT_FOUND, 400, 404), text


@each_socket
def test_whoever_is_not_signed_in(
    pattern: str, arguments: tuple[str, ...], web: RunningWeb, stage: Stage, unchanged: None
) -> None:
    assert _refusal(web, _path(pattern, stage.theirs.ids), None) in (SIGNED_OUT, NOT_FOUND)


@each_socket
def test_pages_of_other_sites_open_no_socket(
    pattern: str, arguments: tuple[str, ...], web: RunningWeb, stage: Stage
) -> None:
    port = (urlsplit(web.url).port or 0) + 1
    for origin in ("http://evil.example", f"http://127.0.0.1:{port}", "null"):
        assert _refusal(web, _path(pattern, stage.theirs.ids), stage.theirs.owner, origin=origin) == 403


@each_socket
@pytest.mark.parametrize("role", list(Role))
def test_a_member_may_what_the_table_says(
    pattern: str, arguments: tuple[str, ...], role: Role, web: RunningWeb, stage: Stage
) -> None:
    member = make_member(stage.theirs.tenant, role)
    path = _path(pattern, stage.theirs.ids)
    if may(role, Permission.USE_PLAYGROUND):
        with _open(web, path, member) as socket, pytest.raises(TimeoutError):
            # It says nothing until it is asked, and stays open.
            socket.recv(timeout=0.3)
    else:
        assert _refusal(web, path, member) == NOT_ALLOWED


def test_addresses_that_do_not_exist_look_like_those_of_others(web: RunningWeb, stage: Stage) -> None:
    assert _refusal(web, "ws/nothing/here", stage.mine.owner) in (NOT_FOUND, 404)


@each_of_operators
def test_for_others_than_operators_their_sockets_do_not_exist(
    path: str, web: RunningWeb, stage: Stage
) -> None:
    assert _refusal(web, path, None) == SIGNED_OUT
    assert _refusal(web, path, stage.mine.owner) == NOT_FOUND
    for role in Role:
        assert _refusal(web, path, make_member(stage.theirs.tenant, role)) == NOT_FOUND, role


@each_of_operators
def test_operators_need_an_elevated_session(path: str, web: RunningWeb, stage: Stage) -> None:
    without_factor = signed_in(make_operator(with_totp=False).person)
    assert _refusal(web, path, without_factor) == NOT_ALLOWED
    operator = make_operator()
    assert _refusal(web, path, signed_in(operator.person)) == NOT_ALLOWED
    expired = signed_in_operator(operator, proven_ago_s=settings.TUNING["SLUICE_ELEVATED_S"] + 1)
    assert _refusal(web, path, expired) == NOT_ALLOWED
    elevated = signed_in_operator(operator)
    assert _refusal(web, path, elevated, origin="http://evil.example") == 403
    with _open(web, path, elevated) as socket:
        assert socket.recv(timeout=10)
