"""`manage.py ingest_feed --backend NAME --format FORMAT PATH…`: read a backend's usage feed by hand."""

import sys
from argparse import ArgumentParser
from datetime import datetime
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError

from models_catalog.engines.feeds import LINE_FORMATS, BadFeedOptions, FeedFormat
from quotas.reconciliation.ingest.by_hand import HandedOver, take_over
from quotas.reconciliation.ingest.operations import BackendNotFound, UnknownFeed, ensure_feed
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.taking import BadCompleteTo, CursorMoved, Taken
from tenants import queries as tenant_queries
from tenants.operations import audit
from tenants.scope import role_scope

BAD_ARGUMENTS = 2


class Command(BaseCommand):
    help = (
        "Reads usage feeds that a backend has written: files, folders, or standard input (-). Reading again "
        "what was read before changes nothing. Lines that cannot be read are quarantined. See "
        "docs/usage-feeds.md."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--backend", required=True, metavar="NAME", help="The backend's code.")
        parser.add_argument("--format", required=True, choices=sorted(one.value for one in LINE_FORMATS))
        parser.add_argument("--feed", default="", metavar="CODE", help="Instead of BACKEND-FORMAT.")
        parser.add_argument("--closed", action="store_true", help="Nobody writes to the files any more.")
        parser.add_argument(
            "--complete-to",
            type=_moment,
            metavar="MOMENT",
            help="All calls that ended before it are in these files, or came before. ISO 8601.",
        )
        parser.add_argument("paths", nargs="+", metavar="PATH")

    def handle(self, *args: Any, **options: Any) -> None:
        paths = [Path(path) for path in options["paths"] if path != "-"]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise CommandError(f"there is no {missing[0]}", returncode=BAD_ARGUMENTS)
        feed = self._feed(options)
        with role_scope("ingest"):
            try:
                over = take_over(
                    feed_id=feed.id,
                    paths=paths,
                    stream=cast(BufferedIOBase, sys.stdin.buffer) if "-" in options["paths"] else None,
                    is_closed=options["closed"],
                    now=tenant_queries.database_time(),
                    complete_to=options["complete_to"],
                    told=self._progress,
                )
            except BadFeedOptions as error:
                raise CommandError(f"feed {feed.code}: {error}", returncode=BAD_ARGUMENTS) from error
            except BadCompleteTo as error:
                raise CommandError(f"--complete-to: {error}", returncode=BAD_ARGUMENTS) from error
            except OSError as error:
                raise CommandError(f"{error.filename}: {error.strerror}") from error
            except CursorMoved as error:
                raise CommandError("somebody else reads the same files now; try again") from error
        self._clear()
        self._print(feed, over)

    def _feed(self, options: dict[str, Any]) -> FeedSource:
        try:
            with role_scope("operator"):
                return ensure_feed(
                    backend_code=options["backend"],
                    format=FeedFormat(options["format"]),
                    code=options["feed"],
                    actor=audit.SYSTEM,
                )
        except (BackendNotFound, UnknownFeed) as error:
            raise CommandError(str(error), returncode=BAD_ARGUMENTS) from error

    def _progress(self, name: str, taken: Taken) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r\x1b[K{Path(name).name}: {taken.lines:,} lines", ending="")
            self.stderr.flush()

    def _clear(self) -> None:
        if self.stderr.isatty():
            self.stderr.write("\r\x1b[K", ending="")

    def _print(self, feed: FeedSource, over: HandedOver) -> None:
        taken = over.taken
        self.stdout.write(f"feed         {feed.code}")
        self.stdout.write(f"read         {taken.lines:,} lines of {over.files} files")
        self.stdout.write(
            f"taken        {taken.entries:,} records: {taken.inserted:,} new, {taken.known:,} known"
        )
        if taken.inserted:
            self.stdout.write(
                f"of the new   {taken.matched:,} match, {taken.mismatched:,} do not, "
                f"{taken.early:,} are early, {taken.foreign:,} foreign"
            )
        self.stdout.write(f"quarantined  {taken.quarantined:,} lines")
        for reason, count in sorted(over.reasons.items()):
            self.stdout.write(f"  {reason:<18}{count:,}")
        for name in over.waiting:
            self.stdout.write(f"waiting      {name}: its last line has no end yet (--closed reads it)")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment needs its offset from UTC")
    return moment
