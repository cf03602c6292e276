"""Random payment histories, each from a seed: whatever is lost, doubled, late or killed, the money is right.

HISTORIES says how many (100 by default), FIRST_HISTORY from which seed. The seeds of those that fail are kept
in failed-histories.txt beside the pictures; FIRST_HISTORY=<seed> HISTORIES=1 plays one again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from devstack.packages import REPOSITORY
from devstack.stripe_standin.testing import Standin, running_standin
from portal.kit.clock import utc_now
from quotas import audit
from quotas.payments import inbox
from quotas.payments.tests.moneyback_side import an_operator, make_dear_model
from quotas.payments.tests.stripe_side import configure
from tests.database import connected
from tests.factories import ModelFixture, make_tenant
from tests.histories.actors import ACTS, REFUSALS, Cast
from tests.histories.kills import Reaper, reaping
from tests.histories.verdict import problems_of

COUNT = int(os.environ.get("HISTORIES", "100"))
FIRST = int(os.environ.get("FIRST_HISTORY", "0"))
# So many share a stand-in, whose books get longer with each.
CHAPTER = 20
STEPS = (12, 40)
KILL_SHARE = 0.2
MOST_STEPS_TO_DEATH = 30
# Until the last retry, the last look-up of a key that is too old, the last session's end, and the arrival of
# what takes days.
LAST_WAITS_S = (0, 60, 3_700, 23 * 3_600, 90_000, 3 * 86_400, 7 * 3_600)


def chapters() -> list[range]:
    return [
        range(start, min(start + CHAPTER, FIRST + COUNT)) for start in range(FIRST, FIRST + COUNT, CHAPTER)
    ]


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_dear_model()


@pytest.fixture
def reaper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reaper]:
    with reaping(monkeypatch) as working:
        yield working


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", chapters(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_histories_end_with_the_right_money(
    seeds: range, model: ModelFixture, reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 1_000_000)
    problems: dict[int, list[str]] = {}
    with running_standin(tmp_path / "stripe") as standin:
        configure(monkeypatch, standin)
        _forget_pollers()
        ahead = timedelta()
        for seed in seeds:
            cast = Cast(standin, make_tenant(), model, an_operator(), Client(), Random(seed), ahead)
            try:
                _play(cast, reaper)
                found = problems_of(cast.tenant, standin.control.books())
            except Exception as broken:  # noqa: BLE001  The seed is what helps; the others are told too.
                found = [f"{type(broken).__name__}: {broken}"]
            ahead = cast.ahead
            if found:
                problems[seed] = [*found, " ".join(cast.did)]
        money = _money()
        _hear_everything_again(standin, utc_now() + ahead)
        assert _money() == money, "what was heard again moved money"
    violated = [result for result in audit.run() if not result.holds]
    _keep(problems)
    assert not problems, "\n".join(
        f"seed {seed}: {line}" for seed, lines in problems.items() for line in lines
    )
    assert not violated, violated


def _play(cast: Cast, reaper: Reaper) -> None:
    acts = [act for weight, act in ACTS for _ in range(weight)]
    cast.standin.control.settings(pending_refunds=cast.random.random() < 0.3)
    for _ in range(cast.random.randint(*STEPS)):
        act = cast.random.choice(acts)
        dies = cast.random.random() < KILL_SHARE
        cast.did.append(act.__name__ + ("†" if dies else ""))
        with reaper.due_after(cast.random.randint(0, MOST_STEPS_TO_DEATH) if dies else None):
            try:
                act(cast)
            except REFUSALS:
                continue
    _conclude(cast)


def _conclude(cast: Cast) -> None:
    """No more accidents: what remains to be done is done by the workers alone."""
    cast.standin.control.post("faults", clear=True)
    cast.standin.control.settings(pending_refunds=False)
    for wait_s in LAST_WAITS_S:
        cast.pass_time(wait_s)
        for work in (
            cast.sweep,
            cast.poll_events,
            cast.process,
            cast.poll_top_ups,
            cast.keep_books,
            cast.review,
        ):
            work()


def _money() -> list[Any]:
    """Everything that ever moved, and what everybody has."""
    with connected("owner") as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM quotas_ledgertransfer), tenant_id, paid_nanos, granted_nanos,"
            " receivable_nanos, pending_nanos FROM quotas_wallet ORDER BY tenant_id"
        ).fetchall()


def _hear_everything_again(standin: Standin, now: datetime) -> None:
    """The whole history of events comes once more, onto the finished database."""
    events = [event["id"] for event in standin.control.books()["events"]]
    with connected("owner") as connection:
        connection.execute(
            "UPDATE quotas_stripeevent SET state = 'RECEIVED', attempts = 0, processed_at = NULL,"
            " next_attempt_at = %s WHERE id = ANY (%s)",
            (now, events),
        )
    while inbox.process_due_events(now=now).done:
        pass


def _forget_pollers() -> None:
    """Another account of Stripe, whose clock stands where the last one's stood days ago."""
    with connected("owner") as connection:
        connection.execute("DELETE FROM quotas_pollcursor")


def _keep(problems: dict[int, list[str]]) -> None:
    if problems:
        folder = Path(os.environ.get("ARTIFACTS") or REPOSITORY / "artifacts").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "failed-histories.txt").open("a", encoding="utf-8") as kept:
            kept.writelines(f"{seed}\t{'; '.join(lines)}\n" for seed, lines in problems.items())
