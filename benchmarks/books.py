"""What was sent, what the backend served and what was booked must be the same, to the token."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parent.parent
SETTLED_WITHIN_S = 30.0
AUDIT_TIMEOUT_S = 900.0

_BOOKED = """
WITH newest AS (
    SELECT DISTINCT ON (request_id) * FROM quotas_usagerecord ORDER BY request_id, revision DESC
)
SELECT (SELECT count(*) FROM quotas_inferencerequest),
       (SELECT count(*) FROM quotas_attempt),
       (SELECT count(*) FROM quotas_hold WHERE state = 'POSTED'),
       (SELECT count(*) FROM quotas_hold WHERE state <> 'POSTED'),
       count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0),
       coalesce(sum(completion_tokens), 0), count(*) FILTER (WHERE basis <> 'FINAL_USAGE')
FROM newest
"""


@dataclass(frozen=True, slots=True)
class Booked:
    """Everything in the database. not_posted: holds that are pending, voided or expired."""

    requests: int
    attempts: int
    posted: int
    not_posted: int
    usage_records: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    estimated: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What the clients have seen, of all calls through the gateway."""

    ok: int = 0
    failed: int = 0
    cut: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Sent) -> Sent:
        return Sent(
            self.ok + other.ok,
            self.failed + other.failed,
            self.cut + other.cut,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """differences: one sentence each; none when all agree."""

    sent: Sent
    served: Mapping[str, int]
    booked: Booked
    audit_exit_code: int
    differences: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        return not self.differences


def booked(database_url: str) -> Booked:
    """Waits until no hold is pending: settlement follows the answer."""
    deadline_s = time.monotonic() + SETTLED_WITHIN_S
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(_BOOKED).fetchone()
            assert row is not None
            result = Booked(*(int(value) for value in row))
            if not result.not_posted or time.monotonic() > deadline_s:
                return result
            time.sleep(0.2)


def compare(*, sent: Sent, served: Mapping[str, int], database_url: str) -> Verdict:
    """served: the backend's own book of the calls that came through the gateway."""
    found = booked(database_url)
    audit = subprocess.run(
        [sys.executable, "manage.py", "audit"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=AUDIT_TIMEOUT_S,
        check=False,
    )
    pairs = {
        "requests in the table, answers that clients got": (found.requests, sent.ok),
        "requests in the table, requests that the backend served": (found.requests, served["requests"]),
        "requests in the table, posted holds": (found.requests, found.posted),
        "requests in the table, usage records": (found.requests, found.usage_records),
        "requests in the table, attempts": (found.requests, found.attempts),
        "prompt tokens billed, served": (found.prompt_tokens, served["prompt_tokens"]),
        "cached tokens billed, served": (found.cached_tokens, served["cached_tokens"]),
        "completion tokens billed, served": (found.completion_tokens, served["completion_tokens"]),
        "completion tokens billed, delivered": (found.completion_tokens, sent.completion_tokens),
        "usage not measured by the backend's last word, none": (found.estimated, 0),
        "calls that failed, none": (sent.failed, 0),
        "streams that were cut, none": (sent.cut, 0),
        "streams that the backend saw cut, none": (served["cut"], 0),
    }
    differences = [f"{what}: {one} and {other}" for what, (one, other) in pairs.items() if one != other]
    if audit.returncode:
        differences.append(f"manage.py audit exits {audit.returncode}")
    return Verdict(sent, served, found, audit.returncode, tuple(differences))
