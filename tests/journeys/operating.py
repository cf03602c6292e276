"""How operators work in pages: signing in with a second factor, and dialogs."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.urls import reverse
from django.utils.module_loading import import_string
from playwright.sync_api import Locator, Page, expect

from portal.backoffice.tests.people import Operator, totp_code
from tests.journeys import accounts, hooks

# Pages are loaded anew behind dialogs, on machines that do other things besides.
RELOADED_MS: Final = 15_000
_RECORDS: Final = "account_authentication_methods"


def sign_in(page: Page, operator: Operator) -> None:
    """With the password and the code of this moment, through the forms."""
    assert operator.totp_secret is not None
    accounts.sign_in(page, operator.person.email)
    hooks.field(page, "code").fill(totp_code(operator.totp_secret))
    accounts.submit(page, reverse("mfa_authenticate"))
    hooks.go(page, "backoffice:home")


def session_of(page: Page) -> str:
    """The key of the session that this window has."""
    for cookie in page.context.cookies():
        if cookie.get("name") == settings.SESSION_COOKIE_NAME:
            return cookie.get("value") or ""
    raise AssertionError("the window has no session")


def age_proof(session_key: str, seconds: float) -> None:
    """The second factor of this session was used so much earlier than it was."""
    store: SessionBase = import_string(f"{settings.SESSION_ENGINE}.SessionStore")(session_key)
    store[_RECORDS] = [{**record, "at": record["at"] - seconds} for record in store[_RECORDS]]
    store.save()


def open_form(page: Page, opener: str) -> Locator:
    """Click what carries this hook, and the dialog that comes, once its form is there."""
    hooks.hook(page, opener).first.click()
    form = page.locator("dialog[open] form[method=post]")
    expect(form).to_be_visible()
    return page.locator("dialog[open]")


def fill(form: Locator, **values: str) -> None:
    """Fill in fields by their names; of a choice, the value or what stands there."""
    for name, value in values.items():
        found = hooks.field(form, name)
        if found.evaluate("element => element.localName") == "select":
            found.select_option(value)
        elif found.get_attribute("type") == "radio":
            form.locator(f'[name="{name}"][value="{value}"]').check()
        else:
            found.fill(value)


def send(dialog: Locator, button: str) -> None:
    """Send the form; it was taken when the page has been loaded anew without the dialog."""
    hooks.hook(dialog, button).click()
    expect(dialog).to_have_count(0, timeout=RELOADED_MS)


def seconds_of_elevation() -> float:
    """How long a second factor opens the operators' area."""
    return float(settings.TUNING["SLUICE_ELEVATED_S"])
