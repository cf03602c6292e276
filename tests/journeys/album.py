"""Numbered pictures of a journey, for whoever wants to see what people saw."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page


class Album:
    """Pictures in one folder, numbered in the order in which they were taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def take(self, page: Page, name: str, *, full_page: bool = True) -> None:
        """full_page: all of it; an open dialog is better seen in the window alone."""
        self._count += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        if full_page:
            # What sticks to the window would else be drawn in the middle of a page that was scrolled.
            page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=self._folder / f"{self._count:02}-{name}.png", full_page=full_page)
