"""A feed as readers need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import Q

from models_catalog.engines.feeds import FeedFormat, FeedOptions, parse_options
from models_catalog.models import UsageFeed
from quotas.models import FeedState

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class UnknownFeed(LookupError):
    """There is no such feed."""


@dataclass(frozen=True, slots=True)
class FeedSource:
    """One feed. `credential_encrypted` is empty where none was issued."""

    id: UUID
    code: str
    backend_id: UUID
    format: FeedFormat
    folder: str
    is_enabled: bool
    columns: dict[str, object] = field(repr=False)
    time_zone: str
    credential_encrypted: str = field(repr=False)

    def options(self) -> FeedOptions:
        """Errors: BadFeedOptions, when the row was written by something older or other than the catalog."""
        return parse_options(self.format, {**self.columns, "time_zone": self.time_zone})


def feed_source(feed_id: UUID) -> FeedSource:
    """The feed of this id, as the scope's role sees it. Errors: UnknownFeed."""
    row = UsageFeed.objects.filter(id=feed_id).first()
    if row is None:
        raise UnknownFeed("there is no such feed")
    return _source(row)


def feeds_named(*, name: str, format: FeedFormat) -> Sequence[FeedSource]:
    """The feeds of a format that go by this name, theirs or their backend's; one of their own comes first."""
    rows = UsageFeed.objects.filter(Q(code=name) | Q(backend__code=name), format=format).order_by("code")[:10]
    return sorted((_source(row) for row in rows), key=lambda feed: feed.code != name)


def watched_feeds() -> Sequence[FeedSource]:
    """Those whose folders are read, with the one that is furthest behind first."""
    rows = UsageFeed.objects.filter(is_enabled=True).exclude(folder="").order_by("code")
    complete_to = dict(FeedState.objects.values_list("feed_id", "complete_to"))
    behind = sorted(rows, key=lambda row: complete_to.get(row.id) or _NEVER)
    return [_source(row) for row in behind]


def _source(row: UsageFeed) -> FeedSource:
    return FeedSource(
        id=row.id,
        code=row.code,
        backend_id=row.backend_id,
        format=FeedFormat(row.format),
        folder=row.folder,
        is_enabled=row.is_enabled,
        columns=row.columns,
        time_zone=row.time_zone,
        credential_encrypted=row.credential_encrypted,
    )
