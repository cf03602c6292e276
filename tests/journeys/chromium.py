"""The system's Chromium: where it is, and how it is started for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "google-chrome")
MISSING = "there is no Chromium: install Debian's `chromium`, or name one in CHROMIUM"


def find_chromium() -> Path | None:
    """The program that CHROMIUM names, else Debian's, else one of the path."""
    named = os.environ.get("CHROMIUM")
    if named:
        return Path(named)
    found = [Path("/usr/bin/chromium"), *(Path(path) for name in _NAMES if (path := shutil.which(name)))]
    return next((path for path in found if path.exists()), None)


def is_required() -> bool:
    """Whether the absence of Chromium is a failure: in continuous integration it is."""
    return os.environ.get("CI", "") not in ("", "0", "false")


@contextmanager
def running_chromium(program: Path) -> Iterator[Browser]:
    """A browser that talks to this machine only.

    While it runs an event loop counts as running in this thread, so coroutines cannot be run here and
    Django's database refuses to work: see tests/journeys/backstage.py.
    """
    arguments = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        # There is no outside: neither proxies of the environment nor other names than this machine's.
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    ]
    if os.geteuid() == 0:
        # The sandbox needs a user of its own; root in a container has none.
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments, headless=True)
        try:
            yield browser
        finally:
            browser.close()
