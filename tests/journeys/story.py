"""What the audit log must tell of a journey, in which order, and what its page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from playwright.sync_api import Page

from tests.journeys import hooks


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the audit log that a journey must have left. before, after: a part of what it tells."""

    action: str
    reason: str = ""
    before: Mapping[str, object] = field(default_factory=dict)
    after: Mapping[str, object] = field(default_factory=dict)
    outcome: str = "DONE"

    def matches(self, row: Mapping[str, object]) -> list[str]:
        """What the stored event does not tell as it should; empty when it does."""
        wrong = []
        if row["reason"] != self.reason:
            wrong.append(f"{self.action}: reason {row['reason']!r}, not {self.reason!r}")
        for name, wanted in (("before", self.before), ("after", self.after)):
            values = row[name] or {}
            assert isinstance(values, dict)
            wrong += [
                f"{self.action}: {name} {key} is {values.get(key)!r}, not {value!r}"
                for key, value in wanted.items()
                if values.get(key) != value
            ]
        return wrong


def assert_story(rows: Sequence[Mapping[str, object]], story: Sequence[Told]) -> None:
    """Stored events, oldest first, are exactly these, in this order, with before, after and reason."""
    assert [(row["action"], row["outcome"]) for row in rows] == [(one.action, one.outcome) for one in story]
    wrong = [text for row, one in zip(rows, story, strict=True) for text in one.matches(row)]
    assert not wrong, "\n".join(wrong)


def read_story(page: Page) -> list[tuple[str, str, str]]:
    """Action, outcome and reason of every event that the page shows, oldest first."""
    shown = [
        (
            row.get_attribute("data-action") or "",
            row.get_attribute("data-outcome") or "",
            hooks.hook(row, "audit-reason").inner_text().strip(),
        )
        for row in hooks.hook(page, "audit-event").all()
    ]
    return shown[::-1]
