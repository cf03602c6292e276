"""Who may open a socket, who may still run, and what a socket takes."""

from __future__ import annotations

import contextlib

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from devstack.engines.testing import sim
from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.playground import limits
from portal.playground.tests.stage import Person, Stage, database, leave, member_of
from tenants.models import Role, TenantState
from tenants.operations import accept_terms
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import make_tenant, set_state


async def test_a_stranger_finds_nothing(stage: Stage) -> None:
    """An organization of others, one that is not, and a malformed id look the same."""
    stranger = await database(lambda: member_of(make_tenant()))
    missing = public_id(PREFIXES["organization"], uuid7())
    codes = []
    for organization in (stage.tenant.public_id, missing, "org_nonsense", "../x", "a" * 300):
        async with stage.page(stranger, organization=organization) as page:
            codes.append(await page.close_code())
    assert codes == [4404] * 5


async def test_whoever_is_not_signed_in_is_told_so(stage: Stage) -> None:
    nobody = Person(stage.person.user, "no-such-session")
    async with stage.page(nobody) as page:
        assert await page.close_code() == 4401


@pytest.mark.parametrize("role", [Role.BILLING, Role.VIEWER])
async def test_a_role_that_may_not_chat_is_refused(stage: Stage, role: Role) -> None:
    member = await database(member_of, stage.tenant, role)
    async with stage.page(member) as page:
        assert await page.close_code() == 4403


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9", None, "null"])
async def test_a_foreign_page_opens_no_socket(stage: Stage, origin: str | None) -> None:
    """Not even a page on another port of this host, which has the same cookies."""
    with pytest.raises(InvalidStatus) as refused:
        async with stage.page(origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_a_membership_that_was_taken_ends_at_the_next_run(stage: Stage) -> None:
    async with stage.page() as page:
        assert (await page.run(sim(tokens=3))).text == "w1 w2 w3"
        await database(leave, stage.person, stage.tenant)
        ran = await page.run(sim(tokens=3))
        assert ran.one("error")["code"] == "not_allowed"
        assert not ran.of("queued")
        assert await page.close_code() == 4404
    assert len(rows_of("quotas_inferencerequest", tenant_id=stage.tenant.id)) == 1


async def test_a_session_that_has_ended_runs_nothing(stage: Stage) -> None:
    async with stage.page() as page:
        await database(SessionStore(stage.person.session_key).delete)
        assert (await page.run(sim(tokens=3))).one("error")["code"] == "signed_out"
        assert await page.close_code() == 4401


def _suspend(stage: Stage) -> None:
    set_state(stage.tenant.id, TenantState.SUSPENDED)


async def test_a_suspended_organization_is_told_so(stage: Stage) -> None:
    await database(_suspend, stage)
    async with stage.page() as page:
        assert (await page.run(sim(tokens=3))).one("error")["code"] == "organization_suspended"


async def test_what_no_page_sends_is_refused_and_the_socket_goes_on(stage: Stage) -> None:
    async with stage.page() as page:
        for nonsense in ("", "{", "[]", '{"type":"drop"}', '{"type":"run","id":1}', "\ud7ff" * 10):
            await page.say(nonsense)
            assert (await page.hear())["code"] == "unreadable"
        await page.begin("hello", temperature=3)
        assert (await page.hear())["code"] == "unreadable"
        assert (await page.run(sim(tokens=2))).text == "w1 w2"


async def test_a_message_that_is_too_large_is_refused_kindly_and_a_huge_one_ends_the_socket(
    stage: Stage,
) -> None:
    async with stage.page() as page:
        assert (await page.run("x" * 2**20)).one("error")["code"] == "too_large"
        assert (await page.run(sim(tokens=2))).text == "w1 w2"
        # The server may close while the message is still on its way.
        with contextlib.suppress(ConnectionClosedError):
            await page.begin("x" * 3 * 2**20)
        # What it had not read resets the connection, which can overtake the reason.
        assert await page.close_code() in (1009, 1006)


async def test_nobody_crowds_out_the_others(stage: Stage) -> None:
    async with stage.page() as page:
        for _ in range(limits.MAX_MESSAGES_PER_MINUTE):
            await page.say({"type": "stop"})
        await page.say({"type": "stop"})
        assert (await page.hear())["code"] == "too_many_messages"


async def test_nobody_knocks_without_end(stage: Stage) -> None:
    """Each opening of a socket asks the database, also one that is refused."""
    stranger = await database(lambda: member_of(make_tenant()))
    codes = []
    for _ in range(limits.MAX_CONNECTS_PER_MINUTE + 1):
        async with stage.page(stranger) as page:
            codes.append(await page.close_code())
    assert codes == [4404] * limits.MAX_CONNECTS_PER_MINUTE + [4429]
    async with stage.page() as page:
        assert (await page.run(sim(tokens=2))).text == "w1 w2"


def _accept(person: Person, version: str) -> None:
    with role_scope("auth"):
        accept_terms(user_id=person.user.id, version=version)


async def test_terms_that_were_not_accepted_end_at_the_next_run(stage: Stage) -> None:
    """Whoever accepted older ones is asked by pages; people of the installation have accepted none."""
    async with stage.page() as page:
        assert (await page.run(sim(tokens=2))).text == "w1 w2"
        await database(_accept, stage.person, "2001-01")
        ran = await page.run(sim(tokens=2))
        assert ran.one("error")["code"] == "signed_out"
        assert await page.close_code() == 4401
    async with stage.page() as page:
        assert await page.close_code() == 4401
    await database(_accept, stage.person, settings.TERMS_VERSION)
    async with stage.page() as page:
        assert (await page.run(sim(tokens=2))).text == "w1 w2"


async def test_errors_are_told_in_the_language_of_the_page(stage: Stage) -> None:
    """Which texts there are is the catalogs' matter; a language without one gets English."""
    async with stage.page(headers={"Accept-Language": "de, en;q=0.5"}) as page:
        await page.say("{")
        assert (await page.hear())["message"].startswith("The page sent something")
