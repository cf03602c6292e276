"""What the tests have asked stand-ins for: python -m devstack.stripe_standin.coverage prints it.

Every stand-in that validates leaves a note when it ends; `make test` prints the sum of them at its end.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from devstack.packages import REPOSITORY


def folder() -> Path:
    """Where the notes are: below ARTIFACTS, else a folder that is not committed."""
    return Path(os.environ.get("ARTIFACTS") or REPOSITORY / "artifacts").absolute() / "stripe"


def forget() -> None:
    """Removes the notes of earlier runs."""
    for note in folder().glob("*.json"):
        note.unlink(missing_ok=True)


def leave(endpoints: Mapping[str, int]) -> None:
    """One stand-in's note: requests by endpoint, all of which passed."""
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / f"{uuid4().hex}.json").write_text(json.dumps(dict(endpoints)))


def total() -> Counter[str]:
    counts: Counter[str] = Counter()
    for note in folder().glob("*.json"):
        counts.update(json.loads(note.read_text()))
    return counts


def lines() -> list[str]:
    """The sum, for reading; nothing when no stand-in ran."""
    counts = total()
    if not counts:
        return []
    told = f"{counts.total()} requests to {len(counts)} endpoints"
    head = f"Stripe: {told} fit its client's types and its published description, and so did every answer"
    return [head, *(f"  {count:7}  {endpoint}" for endpoint, count in sorted(counts.items()))]


if __name__ == "__main__":
    print("\n".join(lines()))
    sys.exit(0)
