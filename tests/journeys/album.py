"""Pictures for whoever wants to see what people saw: those of a journey are numbered."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from playwright.sync_api import Page

# A longer page lists what other tests have left behind, and is more than a picture holds.
_LONGEST_PX: Final = 10_000


def photograph(page: Page, path: Path) -> None:
    """A picture of the whole page, also of what lies below the window's edge.

    By the browser's own command: it makes the picture in a quarter of the time that the library takes, which
    has it packed as tightly as can be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    width_px, height_px, window_px = page.evaluate(
        """async () => {
          await document.fonts.ready;
          const root = document.documentElement;
          return [root.clientWidth, root.scrollHeight, window.innerHeight];
        }"""
    )
    height_px = max(height_px, window_px) if height_px <= _LONGEST_PX else window_px
    session = page.context.new_cdp_session(page)
    try:
        taken = session.send(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "optimizeForSpeed": True,
                "clip": {"x": 0, "y": 0, "width": width_px, "height": height_px, "scale": 1},
            },
        )
    finally:
        session.detach()
    path.write_bytes(base64.b64decode(taken["data"]))


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
