"""The test suite in parts, each a session with servers and a database of its own.

What tests leave behind makes pages longer and questions slower, so a part never meets what another one left;
and two parts at a time use a second core.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# How many parts run at a time: further ones would make those slow that start processes and wait for them.
SLOTS = 2

_COUNT = re.compile(r"(\d+) (failed|passed|errors?|skipped|deselected|xfailed|xpassed)\b")
_SUMMARY_LINE = re.compile(r"^(?:FAILED|ERROR) \S")


@dataclass(frozen=True, slots=True)
class Part:
    """`paths` below the repository's root; a test belongs to the part that names it or its nearest folder."""

    name: str
    paths: Sequence[str]


# The longest come first, so that no slot idles at the end.
PARTS: Sequence[Part] = (
    Part("journeys", ("tests/journeys",)),
    Part("every page", ("tests/journeys/test_every_page.py",)),
    Part("quotas", ("quotas",)),
    Part("isolation", ("tests/isolation",)),
    Part("payments", ("quotas/payments", "quotas/books", "quotas/bundles")),
    Part("api", ("portal/api",)),
    Part("clients", ("tests/clients",)),
    Part("faults", ("tests/faults",)),
    Part("histories", ("tests/histories",)),
    Part(
        "data plane",
        ("portal/gateway", "portal/inference", "portal/playground", "portal/kit", "portal/tests"),
    ),
    Part(
        "pages",
        (
            "portal/accounts",
            "portal/storefront",
            "portal/console",
            "portal/pages",
            "portal/webhooks",
            "portal/ingest",
        ),
    ),
    Part("backoffice", ("portal/backoffice",)),
    Part("domain", ("tenants", "models_catalog")),
    Part("house", ("devstack", "benchmarks", "tests/architecture", "tests/test_smoke.py")),
)


def command_of(part: Part) -> list[str]:
    """pytest for this part, without what lies below its folders and belongs to another part."""
    others = [path for other in PARTS if other is not part for path in other.paths]
    ignored = [
        f"--ignore={path}"
        for path in others
        if any(Path(folder) in Path(path).parents for folder in part.paths)
    ]
    return [sys.executable, "-m", "pytest", *part.paths, *ignored]


def slots() -> int:
    return max(1, min(SLOTS, os.cpu_count() or 1))


def failures_of(output: Sequence[str]) -> list[str]:
    """pytest's own summary lines of what failed."""
    return [line for line in output if _SUMMARY_LINE.match(line)]


def closing_line(last_lines: Sequence[str], *, duration_s: float) -> str:
    """One line as pytest would have printed it for all parts together."""
    counts: Counter[str] = Counter()
    for line in last_lines:
        for number, word in _COUNT.findall(line):
            counts["error" if word == "errors" else word] += int(number)
    order = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "error")
    told = ", ".join(f"{counts[word]} {word}" for word in order if counts[word]) or "no tests ran"
    return f"==== {told} in {duration_s:.2f}s ===="
