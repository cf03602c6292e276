"""Barriers in pages: what axe-core finds, what the keyboard does not reach, what does not fit a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from playwright.sync_api import Page

from devstack.packages import REPOSITORY

MIN_TARGET_PX: Final = 24
_AXE: Final = REPOSITORY / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
_GRAVE: Final = ("serious", "critical")
_MAX_TABS: Final = 400
_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# All that axe says of a page is so much that passing it on takes as long as finding it.
_VIOLATIONS: Final = """async ([only, grave]) => {
  const said = await axe.run(document, {resultTypes: ["violations"], runOnly: only});
  return said.violations.filter((rule) => grave.includes(rule.impact)).map((rule) => ({
    id: rule.id,
    impact: rule.impact,
    places: rule.nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`.slice(0, 400)),
  }));
}"""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule of axe-core that a page breaks; `places` are selectors with what is wrong there."""

    rule: str
    impact: str
    places: tuple[str, ...]


@cache
def _axe() -> str:
    assert _AXE.is_file(), f"{_AXE.name} is missing: `make test` installs what the pages are built with"
    return _AXE.read_text(encoding="utf-8")


def find_violations(page: Page, rules: Sequence[str] | None = None) -> list[Violation]:
    """Serious and critical violations of the page as it is now. rules: only these; None: all of WCAG's."""
    # Evaluated through the browser's own door, so the page's policy for scripts does not matter.
    if page.evaluate("() => typeof axe") == "undefined":
        page.evaluate(_axe())
    found = page.evaluate(
        _VIOLATIONS,
        [
            {"type": "tag", "values": _TAGS} if rules is None else {"type": "rule", "values": list(rules)},
            _GRAVE,
        ],
    )
    return [Violation(rule["id"], rule["impact"], tuple(rule["places"])) for rule in found]


def too_wide(page: Page) -> list[str]:
    """What reaches beyond the right edge when the page is wider than its window; empty when nobody has to
    scroll sideways. What scrolls within a box of its own is not meant."""
    found: list[str] = page.evaluate(
        """async () => {
          // Scripts that follow the size of the window have had their turn after two frames.
          for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
          const root = document.documentElement;
          const excess = root.scrollWidth - root.clientWidth;
          if (excess <= 0) return [];
          const scrolls = (element) => getComputedStyle(element).overflowX !== "visible";
          const isBoxed = (element) => {
            for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
              if (scrolls(box)) return true;
            }
            return false;
          };
          const beyond = [...document.body.querySelectorAll("*")]
            .filter((element) => element.getBoundingClientRect().right > root.clientWidth + 0.5)
            .filter((element) => !isBoxed(element))
            .map((element) => {
              const right = Math.round(element.getBoundingClientRect().right);
              const name = `${element.localName}.${[...element.classList].join(".")}`;
              return `${name} to ${right} px: ${element.textContent.trim().slice(0, 40)}`;
            });
          return [`${excess} px too wide`, ...beyond.slice(0, 5)];
        }"""
    )
    return found


def small_targets(page: Page) -> list[str]:
    """What can be clicked and is smaller than a fingertip: below 24 px high or wide.

    Links within a line of text are as high as the line, as WCAG 2.2 allows.
    """
    found: list[str] = page.evaluate(
        """(least) => {
          const small = [];
          for (const element of document.querySelectorAll(
              "a[href], button, select, textarea, input:not([type=hidden]), summary, [role=button]")) {
            if (!element.checkVisibility({visibilityProperty: true})) continue;
            if (element.closest(".visually-hidden")) continue;
            const style = getComputedStyle(element);
            if (element.tagName === "A" && style.display === "inline") continue;
            // A box with a label is as large as its label.
            const label = element.labels && element.labels[0];
            const boxes = [element, label].filter(Boolean).map((one) => one.getBoundingClientRect());
            const width = Math.max(...boxes.map((box) => box.width));
            const height = Math.max(...boxes.map((box) => box.height));
            if (width < least || height < least) {
              const name = `${element.localName} ${(element.textContent || element.name || "").trim()}`;
              small.push(`${name} ${Math.round(width)}x${Math.round(height)}`);
            }
          }
          return small;
        }""",
        MIN_TARGET_PX,
    )
    return found


_COLLECT = """() => {
  window.__reachable = [...document.querySelectorAll(
      "a[href], button, select, textarea, input:not([type=hidden]), summary, [role=button], [role=tab]")]
    .filter((element) => element.checkVisibility({visibilityProperty: true}) && !element.disabled)
    .filter((element) => !element.closest("[inert]"))
    // Of a group of tabs or radio buttons the keyboard reaches one, and arrows the others.
    .filter((element) => element.type !== "radio" || element.checked)
    .filter((element) => element.getAttribute("role") !== "tab" ||
      element.getAttribute("aria-selected") === "true")
    .filter((element) => !element.closest("[aria-hidden=true]"));
  window.__reached = new Set();
  document.activeElement && document.activeElement.blur();
  window.getSelection().removeAllRanges();
}"""
_STEP = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return "out";
  // A date has a stop for each of its parts.
  const isSameDate = element.type === "date" && element === window.__last;
  if (window.__reached.has(element)) return isSameDate ? "" : "again";
  window.__last = element;
  window.__reached.add(element);
  const style = getComputedStyle(element);
  const isMarked = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) ||
    style.boxShadow !== "none";
  return isMarked ? "" : `${element.tagName.toLowerCase()} ${element.textContent.trim().slice(0, 40)}`;
}"""
_MISSED = """() => window.__reachable.filter((element) => !window.__reached.has(element))
  .map((element) => `${element.tagName.toLowerCase()} ` +
    (element.textContent || element.name || "").trim().slice(0, 40))
"""


def walk_by_keyboard(page: Page) -> tuple[list[str], list[str]]:
    """Presses Tab through the page: what was not reached, and what shows no focus when it has it."""
    page.evaluate(_COLLECT)
    unmarked = []
    for _ in range(_MAX_TABS):
        page.keyboard.press("Tab")
        found: str = page.evaluate(_STEP)
        if found in ("out", "again"):
            break
        if found:
            unmarked.append(found)
    missed: list[str] = page.evaluate(_MISSED)
    return missed, unmarked


def unreachable_by_keyboard(page: Page) -> list[str]:
    """What can be clicked but not reached with Tab."""
    missed, _ = walk_by_keyboard(page)
    return missed
