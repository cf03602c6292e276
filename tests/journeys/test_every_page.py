"""Every page in both themes and languages: no barrier, nothing too wide for a phone, a picture of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Page

from portal.backoffice.tests.people import make_operator, next_totp_code
from portal.backoffice.tests.people import sign_in as sign_operator_in
from tests.isolation.cases import ARGUMENT_KINDS
from tests.isolation.worlds import World, make_world
from tests.journeys.accessibility import find_violations, small_targets, too_wide, walk_by_keyboard
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks
from tests.journeys.pages import (
    BY_KEYBOARD,
    IN_ENGLISH,
    NOT_PAGES,
    VISITORS,
    Visitor,
    every_page,
    visitor_of,
)
from tests.journeys.visits import LANGUAGES, THEME_COOKIE, THEMES, Visits
from tests.people import PASSWORD, session_cookie, signed_in
from tests.routes import Route, every_route

PHONE_PX, DESK_PX = 360, 1280
PICTURE_PX = 10_000
PAGES = every_page()


@dataclass(frozen=True, slots=True)
class Looking:
    """A world to look at, and the session of each visitor."""

    world: World
    sessions: dict[Visitor, str | None]


@pytest.fixture(scope="module")
def looking(backstage: Backstage) -> Looking:
    return backstage(_make)


def _make() -> Looking:
    world = make_world()
    proven = signed_in(world.owner)
    proven.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    person = make_operator()
    assert person.totp_secret is not None
    operator = sign_operator_in(person)
    operator.post(reverse("mfa_reauthenticate"), {"code": next_totp_code(person.totp_secret)})
    cookie = settings.SESSION_COOKIE_NAME
    return Looking(
        world,
        {
            Visitor.NOBODY: None,
            Visitor.OWNER: session_cookie(world.owner),
            Visitor.PROVEN: proven.cookies[cookie].value,
            Visitor.OPERATOR: operator.cookies[cookie].value,
        },
    )


def test_every_address_has_a_visitor_or_a_reason() -> None:
    without = [route.name for route in PAGES if visitor_of(route) is None]
    assert not without, f"pages without an entry in tests/journeys/pages.py: {without}"
    known = {route.name for route in every_route()}
    gone = [name for name in (*VISITORS, *NOT_PAGES, *BY_KEYBOARD, *IN_ENGLISH) if name not in known]
    assert not gone, f"entries for pages that are no more: {gone}"


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.name)
def test_a_page_without_barriers(route: Route, visits: Visits, looking: Looking, artifacts: Path) -> None:
    visitor = visitor_of(route)
    assert visitor is not None
    page = visits.open(session=looking.sessions[visitor])
    ids = looking.world.ids
    url = route.url({name: ids[ARGUMENT_KINDS[name]] for name in route.arguments})
    problems: list[str] = []
    for language in LANGUAGES:
        for theme in THEMES:
            _look(page, url, language, theme)
            _photograph(page, route, artifacts, language, theme)
            # A theme changes colours only, so the other rules are asked once a language.
            rules = ("color-contrast",) if theme == "dark" else None
            problems += [f"{language} {theme}: {violation}" for violation in find_violations(page, rules)]
        try:
            if route.name not in IN_ENGLISH:
                assert_speaks(page, language)
        except AssertionError as wrong:
            problems.append(f"{language}: {wrong}")
        page.set_viewport_size({"width": PHONE_PX, "height": 740})
        problems += [f"{language}: on a phone: {one}" for one in too_wide(page)]
        problems += [f"{language}: too small to hit: {target}" for target in small_targets(page)]
        _photograph(page, route, artifacts, language, THEMES[-1])
        page.set_viewport_size({"width": DESK_PX, "height": 800})
    if route.name in BY_KEYBOARD:
        missed, unmarked = walk_by_keyboard(page)
        problems += [f"not reached by keyboard: {one}" for one in missed]
        problems += [f"no visible focus: {one}" for one in unmarked]
    assert not problems, "\n".join([url, *problems])


def _look(page: Page, url: str, language: str, theme: str) -> None:
    chosen = {settings.LANGUAGE_COOKIE_NAME: language, THEME_COOKIE: theme}
    origin = page.evaluate("() => location.origin")
    if origin == "null":
        page.goto(url)
        origin = page.evaluate("() => location.origin")
    page.context.add_cookies(
        [{"name": name, "value": value, "url": origin} for name, value in chosen.items()]
    )
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200, f"{url} answered {answer.status}"
    assert answer.url.endswith(url), f"{url} led to {answer.url}"


def _photograph(page: Page, route: Route, artifacts: Path, language: str, theme: str) -> None:
    width = (page.viewport_size or {"width": 0})["width"]
    folder = artifacts / "pages" / route.name.replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    # Other tests leave backends and models behind; a page that lists them all is more than a picture holds.
    height_px = page.evaluate("() => document.documentElement.scrollHeight")
    is_whole = height_px <= PICTURE_PX
    page.screenshot(path=folder / f"{language}-{theme}-{width}.png", full_page=is_whole)
