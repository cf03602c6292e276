"""Every frame and component obeys the content security policy, and every icon that a page names exists."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import Http404
from django.template.loader import render_to_string
from django.test import RequestFactory, override_settings
from django.utils import translation

from portal.pages import failures
from portal.storefront import styleguide

TEMPLATES = Path(settings.BASE_DIR) / "templates"
SPRITE = Path(settings.BASE_DIR) / "static" / "icons.svg"
ERROR_PAGES = ("400.html", "403.html", "403_csrf.html", "404.html", "500.html")


def styleguide_html(frame: str) -> str:
    request = RequestFactory().get("/styleguide", {"frame": frame})
    request.user = AnonymousUser()
    return styleguide.styleguide(request).content.decode()


@pytest.mark.parametrize("frame", styleguide.FRAMES)
@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_no_frame_needs_what_the_policy_forbids(frame: str, language: str) -> None:
    with translation.override(language):
        html = styleguide_html(frame)
    assert not re.findall(r"<[^>]*\sstyle=", html)
    assert not re.findall(r"<[^>]*\son[a-z]+=", html)
    assert not re.findall(r"<[^>]*\shx-on", html)
    assert not re.findall(r"<script(?![^>]*\ssrc=)", html)
    assert f'<html lang="{"zh-Hans" if language == "zh-hans" else "en"}"' in html
    assert ("OPERATOR" in html) == (frame == "operator")


@pytest.mark.parametrize("frame", styleguide.FRAMES)
def test_ids_are_unique_and_what_refers_to_one_finds_it(frame: str) -> None:
    html = styleguide_html(frame)
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'(?:data-copy|data-dialog)="#([^"]+)"', html))
    targets |= set(re.findall(r'(?:aria-controls|aria-labelledby)="([^"]+)"', html))
    assert targets <= set(ids)


@override_settings(MAILBOX=False)
def test_outside_development_there_is_no_styleguide() -> None:
    with pytest.raises(Http404):
        styleguide_html("console")


def test_every_icon_that_a_template_names_exists() -> None:
    known = set(re.findall(r'<symbol id="([^"]+)"', SPRITE.read_text(encoding="utf-8")))
    named = {
        (name, str(file.relative_to(TEMPLATES)))
        for file in TEMPLATES.rglob("*.html")
        for name in re.findall(r'{% icon "([^"]+)"', file.read_text(encoding="utf-8"))
    }
    assert not {(name, file) for name, file in named if name not in known}


@pytest.mark.parametrize("page", ERROR_PAGES)
def test_error_pages_stand_without_request_and_database(page: str) -> None:
    html = render_to_string(page, {"request_id": "req_1"})
    assert "req_1" in html
    assert "<h1>" in html
    assert render_to_string(page, {})


def test_the_theme_is_on_the_root_or_left_to_the_system() -> None:
    assert '<html lang="en" data-theme="dark">' in render_to_string("404.html", {"theme": "dark"})
    assert '<html lang="en">' in render_to_string("404.html", {"theme": ""})


@pytest.mark.parametrize(("handler", "status"), [("server_error", 500), ("bad_request", 400)])
def test_failures_name_their_request_and_keep_the_theme(handler: str, status: int) -> None:
    request = RequestFactory().get("/", SLUICE_REQUEST_ID="req_2")
    request.COOKIES["theme"] = "dark"
    arguments = (request,) if handler == "server_error" else (request, ValueError("x"))
    response = getattr(failures, handler)(*arguments)
    assert response.status_code == status
    assert "req_2" in response.content.decode()
    assert 'data-theme="dark"' in response.content.decode()
