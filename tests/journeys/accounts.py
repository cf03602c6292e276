"""Signing up and in through the pages, as people do."""

from __future__ import annotations

import re

from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.journeys.hooks import field, go
from tests.people import PASSWORD


def submit(page: Page, action: str) -> None:
    """Presses the button of the form that posts to this path."""
    page.locator(f'form[action="{action}"] button[type=submit]').first.click()


def sign_up(page: Page, *, email: str, name: str, organization: str | None) -> None:
    """Fill in the sign-up form and send it. organization: None for somebody who was invited."""
    field(page, "full_name").fill(name)
    if organization is not None:
        field(page, "organization").fill(organization)
        field(page, "email").fill(email)
    field(page, "password1").fill(PASSWORD)
    field(page, "terms").check()
    submit(page, reverse("account_signup"))


def open_mail(page: Page, email: str) -> None:
    """The newest mail to an address, in the mailbox of the development installation."""
    go(page, "accounts:mailbox")
    page.locator("li", has_text=email).first.locator("a").first.click()
    expect(page.locator(".mail-text")).to_be_visible()


def follow_link(page: Page, part: str) -> None:
    """The link in the mail that is open, whose address contains this."""
    page.locator(f'.mail-text a[href*="{part}"]').first.click()


def verify(page: Page, email: str) -> None:
    """Confirm the address by the link of the mail that sign-up sent."""
    open_mail(page, email)
    follow_link(page, "confirm-email")
    page.locator('form[action*="confirm-email"] button[type=submit]').click()
    expect(page).not_to_have_url(re.compile("confirm-email"))


def sign_in(page: Page, email: str) -> None:
    """Through the form, with the password of all test people."""
    go(page, "account_login")
    field(page, "login").fill(email)
    field(page, "password").fill(PASSWORD)
    submit(page, reverse("account_login"))
    expect(page).not_to_have_url(re.compile("accounts/login"))
