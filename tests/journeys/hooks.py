"""How journeys find things in pages: by hooks and names that stay the same in every language."""

from __future__ import annotations

import re

from django.urls import reverse
from playwright.sync_api import Locator, Page

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def hook(where: Page | Locator, name: str, **data: str) -> Locator:
    """What carries data-testid="name", and further data attributes: hook(page, "key-row", key="key_…")."""
    further = "".join(f'[data-{key}="{value}"]' for key, value in data.items())
    return where.locator(f'[data-testid="{name}"]{further}')


def field(where: Page | Locator, name: str) -> Locator:
    """The input of a form with this name, the one that people see."""
    return where.locator(f'[name="{name}"]:not([type=hidden])').first


def nanos(where: Locator) -> int:
    """The exact amount that {% money %} shows there, in nano-units."""
    value = where.locator("data").first.get_attribute("value")
    assert value is not None, "no amount"
    return int(value)


def organization_of(page: Page) -> str:
    """The public id in the address of an organization's page."""
    found = re.search(r"/o/(org_[0-9a-z]+)/", page.url)
    assert found, f"{page.url} is no page of an organization"
    return found[1]


def go(page: Page, name: str, *args: str) -> None:
    """To the page with this URL name; errors: AssertionError when it does not answer 200."""
    answer = page.goto(reverse(name, args=args))
    assert answer is not None
    assert answer.status == 200, f"{name} answered {answer.status}"


def assert_speaks(page: Page, language: str) -> None:
    """The page says which language it is in, and its headings are in it."""
    said = page.locator("html").get_attribute("lang") or ""
    assert said.lower() == language, said
    heading = " ".join(page.locator("h1, h2").all_inner_texts())
    assert bool(_CHINESE.search(heading)) == language.startswith("zh"), f"{page.url}: {heading}"
