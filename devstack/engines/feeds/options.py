"""What feeds a simulator has, on the command line and in a test."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devstack.engines.feeds.faults import FeedFaults, FeedFaultsError
from devstack.engines.feeds.generic import DEFAULT_SOURCE
from devstack.engines.feeds.told import ENCODINGS, FEED_FORMATS, Encoding, FeedFormat

# As OpenTelemetry's exporters do.
DEFAULT_BATCH_S = 5.0
DEFAULT_GIVE_UP_S = 60.0
PUSH_FORMATS: tuple[FeedFormat, ...] = ("cloudevents", "ndjson", "csv")


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """Nothing is written without a `directory`, and nothing pushed without an endpoint.

    `formats` of files; empty: the flavour's usual one. `otlp_headers` are sent with each export.
    `push_secret` signs pushes. `batch_s` is how long pushed records are collected, `give_up_s` how long a
    batch is tried. `faults` may also concern engines without feeds.
    """

    directory: Path | None = None
    formats: tuple[FeedFormat, ...] = ()
    faults: FeedFaults = field(default_factory=FeedFaults)
    otlp_endpoint: str | None = None
    otlp_headers: tuple[tuple[str, str], ...] = ()
    otlp_encoding: Encoding = "protobuf"
    push_url: str | None = None
    push_format: FeedFormat = "cloudevents"
    push_secret: str | None = None
    push_headers: tuple[tuple[str, str], ...] = ()
    push_source: str = DEFAULT_SOURCE
    batch_s: float = DEFAULT_BATCH_S
    give_up_s: float = DEFAULT_GIVE_UP_S

    def arguments(self) -> list[str]:
        """The command line that says the same."""
        single: dict[str, object] = {
            "feed-dir": self.directory,
            "feed-format": ",".join(self.formats) or None,
            "feed-faults": str(self.faults) or None,
            "otlp-endpoint": self.otlp_endpoint,
            "otlp-encoding": self.otlp_encoding,
            "push-url": self.push_url,
            "push-format": self.push_format,
            "push-secret": self.push_secret,
            "push-source": self.push_source,
            "push-batch-s": self.batch_s,
            "push-give-up-s": self.give_up_s,
        }
        given = [f"--{name}={value}" for name, value in single.items() if value is not None]
        given += [f"--otlp-header={name}={value}" for name, value in self.otlp_headers]
        return given + [f"--push-header={name}={value}" for name, value in self.push_headers]


def add_feed_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of feeds."""
    group = parser.add_argument_group("usage feeds")
    group.add_argument("--feed-dir", type=Path, help="write feed files into this folder")
    group.add_argument(
        "--feed-format", type=_formats, default=(), help=f"of files, with commas: {', '.join(FEED_FORMATS)}"
    )
    group.add_argument(
        "--feed-faults",
        type=_faults,
        default=FeedFaults(),
        metavar="seed=7,lost=0.01,…",
        help="seeded faults of the feed and of the engine, see feeds/faults.py",
    )
    group.add_argument("--otlp-endpoint", help="push spans to this URL, as vLLM does")
    group.add_argument("--otlp-header", type=_header, action="append", default=[], metavar="NAME=VALUE")
    group.add_argument("--otlp-encoding", choices=ENCODINGS, default="protobuf")
    group.add_argument("--push-url", help="push records to this URL")
    group.add_argument("--push-format", choices=PUSH_FORMATS, default="cloudevents")
    group.add_argument("--push-secret", help="signs pushes: Sluice-Timestamp and Sluice-Signature")
    group.add_argument("--push-header", type=_header, action="append", default=[], metavar="NAME=VALUE")
    group.add_argument("--push-source", default=DEFAULT_SOURCE, help="the source of CloudEvents")
    group.add_argument("--push-batch-s", type=_seconds, default=DEFAULT_BATCH_S)
    group.add_argument("--push-give-up-s", type=_seconds, default=DEFAULT_GIVE_UP_S)


def feed_options(given: argparse.Namespace) -> FeedOptions:
    """Of what was parsed."""
    return FeedOptions(
        directory=given.feed_dir,
        formats=given.feed_format,
        faults=given.feed_faults,
        otlp_endpoint=given.otlp_endpoint,
        otlp_headers=tuple(given.otlp_header),
        otlp_encoding=given.otlp_encoding,
        push_url=given.push_url,
        push_format=given.push_format,
        push_secret=given.push_secret,
        push_headers=tuple(given.push_header),
        push_source=given.push_source,
        batch_s=given.push_batch_s,
        give_up_s=given.push_give_up_s,
    )


def _formats(text: str) -> tuple[FeedFormat, ...]:
    known: Sequence[FeedFormat] = [name for name in FEED_FORMATS if name in text.split(",")]
    if len(known) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"is one or several of {', '.join(FEED_FORMATS)}")
    return tuple(known)


def _faults(text: str) -> FeedFaults:
    try:
        return FeedFaults.parse(text)
    except FeedFaultsError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from wrong


def _header(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError("is NAME=VALUE")
    return name, value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("is more than 0 and at most 3600")
    return value
