"""Every page in both themes and languages: no barrier, nothing too wide for a phone, a picture of each.

Each visitor has one window for all pages, as people have. A page is loaded once in each language, in another
theme each time, and asked for everything there; pictures of the other theme are taken after changing only
the attribute that a theme is (templates/layouts/base.html).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Page, ViewportSize

from portal.backoffice.tests.people import make_operator, next_totp_code
from portal.backoffice.tests.people import sign_in as sign_operator_in
from tests.isolation.cases import ARGUMENT_KINDS
from tests.isolation.worlds import World, make_world
from tests.journeys.accessibility import find_violations, small_targets, too_wide, walk_by_keyboard
from tests.journeys.album import photograph
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

PHONE, DESK = ViewportSize(width=360, height=740), ViewportSize(width=1280, height=800)
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


@pytest.fixture(scope="module")
def window_of(lasting_visits: Visits, looking: Looking) -> Callable[[Visitor], Page]:
    """The window of a visitor, which opens when it is first asked for."""
    opened: dict[Visitor, Page] = {}

    def find(visitor: Visitor) -> Page:
        if visitor not in opened or opened[visitor].is_closed():
            opened[visitor] = lasting_visits.open(session=looking.sessions[visitor])
        return opened[visitor]

    return find


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.name)
def test_a_page_without_barriers(
    route: Route,
    windows: Visits,
    window_of: Callable[[Visitor], Page],
    looking: Looking,
    artifacts: Path,
) -> None:
    visitor = visitor_of(route)
    assert visitor is not None
    page = window_of(visitor)
    page.set_viewport_size(DESK)
    ids = looking.world.ids
    url = route.url({name: ids[ARGUMENT_KINDS[name]] for name in route.arguments})
    folder = artifacts / "pages" / route.name.replace(":", "-")
    problems: list[str] = []
    for language, theme in zip(LANGUAGES, THEMES, strict=True):
        _look(page, windows.url, url, language, theme)
        problems += [f"{language} {theme}: {violation}" for violation in find_violations(page)]
        try:
            if route.name not in IN_ENGLISH:
                assert_speaks(page, language)
        except AssertionError as wrong:
            problems.append(f"{language}: {wrong}")
        for worn in THEMES:
            _wear(page, worn)
            photograph(page, folder / f"{language}-{worn}-{DESK['width']}.png")
        page.set_viewport_size(PHONE)
        problems += [f"{language}: on a phone: {one}" for one in too_wide(page)]
        problems += [f"{language}: too small to hit: {target}" for target in small_targets(page)]
        photograph(page, folder / f"{language}-{THEMES[-1]}-{PHONE['width']}.png")
        page.set_viewport_size(DESK)
    if route.name in BY_KEYBOARD:
        missed, unmarked = walk_by_keyboard(page)
        problems += [f"not reached by keyboard: {one}" for one in missed]
        problems += [f"no visible focus: {one}" for one in unmarked]
    assert not problems, "\n".join([url, *problems])


def _look(page: Page, portal: str, url: str, language: str, theme: str) -> None:
    chosen = {settings.LANGUAGE_COOKIE_NAME: language, THEME_COOKIE: theme}
    page.context.add_cookies(
        [{"name": name, "value": value, "url": portal} for name, value in chosen.items()]
    )
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200, f"{url} answered {answer.status}"
    assert answer.url == portal + url, f"{url} led to {answer.url}"
    assert page.locator("html").get_attribute("data-theme") == theme, f"{url} is not {theme}"


def _wear(page: Page, theme: str) -> None:
    """Puts a theme on, as base.html does, and waits until it is drawn."""
    page.evaluate(
        """async (theme) => {
          document.documentElement.dataset.theme = theme;
          for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
        }""",
        theme,
    )
