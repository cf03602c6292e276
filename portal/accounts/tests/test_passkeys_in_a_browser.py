"""The scripts of passkeys, in Chromium with a key that it simulates, on the real web process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from portal.accounts.tests.visitor import PASSWORD, verified_user
from tenants.models import User
from tests.journeys.chromium import MISSING, find_chromium, is_required, running_chromium
from tests.web_process import RunningWeb

VIRTUAL_KEY = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
TIMEOUT_MS = 15_000


@pytest.fixture
def person(database: None) -> User:
    """Made before there is a page: the browser's driver keeps its thread from talking to the database."""
    return verified_user()


@pytest.fixture
def page(web: RunningWeb, person: User) -> Iterator[Page]:
    """A page of a browser with a simulated key; whatever the console reports fails the test."""
    reported: list[str] = []
    program = find_chromium()
    if program is None and not is_required():
        pytest.skip(MISSING)
    assert program is not None, MISSING
    with running_chromium(program) as browser:
        context = browser.new_context(base_url=web.url.replace("127.0.0.1", "localhost"))
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda line: reported.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: reported.append(str(error)))
        devtools = context.new_cdp_session(page)
        devtools.send("WebAuthn.enable")
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": VIRTUAL_KEY})
        yield page
    assert not reported


def test_a_passkey_is_added_and_signs_in(page: Page, person: User) -> None:
    page.goto("/accounts/login/?next=/accounts/")
    page.get_by_label("E-mail").fill(person.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("link", name="Two-step sign-in and passkeys").click()
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Name").fill("Laptop")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("heading", name="Recovery codes").wait_for()

    page.context.clear_cookies()
    page.goto("/accounts/login/?next=/accounts/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_role("heading", name="Your account").wait_for()


def test_a_numeric_address_is_explained(page: Page, web: RunningWeb) -> None:
    page.goto(f"{web.url}/accounts/login/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_text("Passkeys belong to names").wait_for()
