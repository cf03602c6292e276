"""What tests of the public pages begin with: models under a vendor of the test's own, and browsers."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.conf import settings
from django.test import Client

from models_catalog.models import CatalogModel
from tenants.scope import role_scope
from tests.factories import make_model

DOLLAR = 10**9


def list_model(vendor: str, name: str, *, display_name: str = "Test model", **fields: Any) -> str:
    """A priced model on offer (fields as of make_model); its slug."""
    made = make_model(**fields)
    slug = f"{vendor}/{name}"
    with role_scope("operator"):
        CatalogModel.objects.filter(id=made.id).update(slug=slug, display_name=display_name)
    return slug


def page_of(client: Client, path: str, query: dict[str, Any] | None = None, **headers: str) -> str:
    """The text of a page that must be there."""
    response = client.get(path, query or {}, headers=headers)
    assert response.status_code == 200, (response.status_code, path)
    return response.content.decode()


def slugs_in(page: str) -> list[str]:
    """The models of the catalog's table, in order."""
    return re.findall(r'data-testid="catalog-model" data-slug="([^"]+)"', page)


def text_in(page: str) -> str:
    """What a page says, without its tags and with one space between words."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def speaking(language: str) -> Client:
    client = Client()
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
    return client
