"""Which price versions to end and which to publish, so that the list price is what the file says.

Pure: periods in, steps out. All moments are aware; periods are half-open, and an end of None is never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from models_catalog.pricing.content import PriceContent


@dataclass(frozen=True, slots=True)
class Published:
    """A published version."""

    id: UUID
    active_from: datetime
    active_to: datetime | None
    content: PriceContent


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry of the file: from its moment (None: from now on) this content. `index` identifies it."""

    index: int
    active_from: datetime | None
    content: PriceContent


@dataclass(frozen=True, slots=True)
class EndStep:
    """Give a published version an end; one equal to its beginning withdraws it before it ever held."""

    version: Published
    at: datetime


@dataclass(frozen=True, slots=True)
class PublishStep:
    """Publish the content of an entry for a period."""

    wanted: Wanted
    active_from: datetime
    active_to: datetime | None


@dataclass(frozen=True, slots=True)
class PassedStep:
    """The entry names a moment that has passed, at which another price was in force: it cannot be done."""

    wanted: Wanted


Step = EndStep | PublishStep | PassedStep


def plan_timeline(published: Iterable[Published], wanted: Iterable[Wanted], now: datetime) -> list[Step]:
    """Steps after which each entry holds from its moment, or from now when that has passed, until the
    next entry; the last one until a later published version that the file does not speak of.

    Nothing that has been charged changes. Planning again after the steps gives none. The moments of
    `wanted` differ, and `published` are the versions of one model and currency, without overlap.
    """
    history = [
        version
        for version in published
        if version.active_to is None or version.active_to > version.active_from
    ]
    coming = sorted(
        (version for version in history if version.active_to is None or version.active_to > now),
        key=lambda version: version.active_from,
    )
    entries = sorted(wanted, key=lambda entry: (entry.active_from is not None, entry.active_from or now))
    steps: list[Step] = []
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        end = following.active_from if following is not None else None
        if end is not None and end <= now:
            continue
        start = max(entry.active_from or now, now)
        if following is None:
            end = min((each.active_from for each in coming if each.active_from > start), default=None)
        steps += _plan_entry(entry, start, end, coming)
    return [_with_true_start(step, history, now) for step in steps]


def _plan_entry(entry: Wanted, start: datetime, end: datetime | None, coming: list[Published]) -> list[Step]:
    """Makes `entry` hold in [start, end); takes what it ends out of `coming`."""
    ended: list[Step] = []
    uncovered: list[tuple[datetime, datetime | None]] = []
    cursor: datetime | None = start
    for version in list(coming):
        if (end is not None and version.active_from >= end) or (
            version.active_to is not None and version.active_to <= start
        ):
            continue
        if version.content == entry.content:
            if cursor is not None and cursor < version.active_from:
                uncovered.append((cursor, version.active_from))
            cursor = version.active_to
        else:
            coming.remove(version)
            ended.append(EndStep(version, max(start, version.active_from)))
    if cursor is not None and (end is None or cursor < end):
        uncovered.append((cursor, end))
    return [*ended, *(PublishStep(entry, *period) for period in uncovered)]


def _with_true_start(step: Step, history: Sequence[Published], now: datetime) -> Step:
    """An entry of the past that is the first price of all begins when it says; otherwise it is too late."""
    if not isinstance(step, PublishStep) or step.active_from != now:
        return step
    since = step.wanted.active_from
    if since is None or since == now:
        return step
    if any(
        version.active_from < now and (version.active_to is None or version.active_to > since)
        for version in history
    ):
        return PassedStep(step.wanted)
    return PublishStep(step.wanted, since, step.active_to)
