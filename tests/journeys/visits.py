"""Browser windows that complain: whatever goes wrong in a page fails the test that opened it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    WebSocket,
)

TIMEOUT_MS: Final = 20_000
THEME_COOKIE: Final = "theme"
LANGUAGES: Final = ("en", "zh-hans")
THEMES: Final = ("light", "dark")
# A page that is left takes its requests with it; that is nobody's fault.
_ABORTED: Final = ("net::ERR_ABORTED", "NS_BINDING_ABORTED")
_REPORT_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`content security policy: ${event.violatedDirective} refused ${event.blockedURI} ` +
    `at ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
});
"""


@dataclass(slots=True)
class Complaints:
    """What went wrong in the pages of one test, and what the test expects to go wrong."""

    heard: list[str] = field(default_factory=list)
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Let pass what contains this pattern from now on, such as the 404 of a page that is not there."""
        self._expected.append(re.compile(pattern))

    def add(self, complaint: str) -> None:
        if not any(pattern.search(complaint) for pattern in self._expected):
            self.heard.append(complaint)

    def take(self) -> list[str]:
        """What was heard; from now on nothing has been, and nothing is expected."""
        heard = list(self.heard)
        self.heard.clear()
        self._expected.clear()
        return heard


@dataclass
class Visits:
    """Opens windows for one test. Each has cookies of its own, as if it were another person's browser.

    Without slots, because the browser's library keeps a note in each object whose methods it calls.
    """

    browser: Browser
    url: str
    complaints: Complaints = field(default_factory=Complaints)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(
        self,
        *,
        language: str = "en",
        theme: str | None = "light",
        width: int = 1280,
        height: int = 800,
        session: str | None = None,
    ) -> Page:
        """An empty window. session: the value of a session cookie, to be somebody at once.

        Addresses are relative to the portal: `page.goto("/models")`.
        """
        context = self.browser.new_context(
            base_url=self.url,
            viewport={"width": width, "height": height},
            locale="zh-CN" if language.startswith("zh") else "en-GB",
            timezone_id="Asia/Shanghai" if language.startswith("zh") else "Europe/London",
            # Nothing may depend on motion, and pictures of moving things differ.
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        context.add_init_script(_REPORT_VIOLATIONS)
        self._set_cookie(context, settings.LANGUAGE_COOKIE_NAME, language)
        if theme is not None:
            self._set_cookie(context, THEME_COOKIE, theme)
        if session is not None:
            self._set_cookie(context, settings.SESSION_COOKIE_NAME, session)
        context.on("page", self._listen)
        return context.new_page()

    def close(self) -> None:
        for context in self.contexts:
            context.close()

    def leave(self) -> None:
        """Empties every window, so that no page goes on asking for news."""
        for page in self._pages():
            page.goto("about:blank")

    def photograph(self, folder: Path, name: str) -> None:
        """A picture of every open window, for whoever has to find out what went wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(self._pages()):
            try:
                page.screenshot(path=folder / f"{name}-{number}.png", full_page=True)
            except Error:
                # A window that hangs is no reason to lose the pictures of the others.
                continue

    def _pages(self) -> list[Page]:
        return [page for context in self.contexts for page in context.pages if not page.is_closed()]

    def _set_cookie(self, context: BrowserContext, name: str, value: str) -> None:
        context.add_cookies([{"name": name, "value": value, "url": self.url}])

    def _listen(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.add(f"uncaught in {page.url}: {error}"))
        page.on("crash", lambda crashed: self.complaints.add(f"{crashed.url} crashed"))
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)
        page.on("websocket", self._on_socket)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            place = message.location.get("url", "")
            self.complaints.add(f"console {message.type}: {message.text} ({place})")

    def _on_request(self, request: Request) -> None:
        self._on_address(request.url)

    def _on_address(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.url).netloc:
            self.complaints.add(f"another site was asked: {address}")

    def _on_socket(self, socket: WebSocket) -> None:
        self._on_address(socket.url)
        socket.on("socketerror", lambda error: self.complaints.add(f"socket {socket.url}: {error}"))

    def _on_failure(self, request: Request) -> None:
        if request.failure not in _ABORTED:
            self.complaints.add(f"{request.method} {request.url} failed: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.add(f"{response.request.method} {response.url} answered {response.status}")


OpenPage = Callable[..., Page]
