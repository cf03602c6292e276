"""The usage feeds of a backend in a catalog file: where it says what it has served, and how."""

from __future__ import annotations

from typing import Final

from models_catalog.catalog_file.fields import Fields
from models_catalog.catalog_file.parse import Node
from models_catalog.catalog_file.problems import Place
from models_catalog.catalog_file.wanted import Reading, WantedFeed
from models_catalog.models import UsageFeedFormat, feed_code
from models_catalog.models.feeds import MAX_FEED_GRACE_S

CODE: Final = r"[A-Za-z0-9_-]+"
CODE_FORM: Final = "of letters, digits, hyphens and underscores"
MAX_FEEDS: Final = 20
MAX_FOLDER_LENGTH: Final = 500
_MAX_NAMES: Final = 100
_MAX_NAME_LENGTH: Final = 200
# What UsageFeed.columns holds; what it has to say depends on the format (models_catalog.engines.feeds).
_OPTIONS: Final = ("columns", "header", "delimiter", "finishes", "time_unit")
_KNOWN: Final = ("code", "format", "folder", *_OPTIONS, "time_zone", "grace_s", "enabled")


def read_feeds(
    fields: Fields, backend: str | None, reading: Reading, codes: set[str]
) -> tuple[WantedFeed, ...]:
    """codes: of the feeds further up in the file, whose codes are theirs."""
    feeds = [
        _read_feed(node, place, backend, reading, codes)
        for node, place in fields.entries("feeds", limit=MAX_FEEDS)
    ]
    return tuple(feed for feed in feeds if feed)


def _read_feed(
    node: Node, place: Place, backend: str | None, reading: Reading, codes: set[str]
) -> WantedFeed | None:
    fields = Fields.of(node, place, reading.problems, _KNOWN)
    if fields is None:
        return None
    format = fields.choice("format", tuple(UsageFeedFormat.values), required=True)
    values: dict[str, object] = {"format": format}
    code = fields.text("code", high=64, pattern=CODE, form=CODE_FORM)
    if not fields.has("code") and backend is not None and format is not None:
        code = feed_code(backend, format)
    if code in codes:
        fields.wrong("code", "is a feed of this file already")
    elif code is not None:
        codes.add(code)
    if fields.has("folder"):
        values["folder"] = _folder(fields, reading)
    if any(fields.has(name) for name in _OPTIONS):
        values["columns"] = _options(fields)
    if fields.has("time_zone"):
        values["time_zone"] = fields.text("time_zone", high=64)
    if fields.has("grace_s"):
        values["grace_s"] = fields.whole("grace_s", low=0, high=MAX_FEED_GRACE_S)
    if fields.has("enabled"):
        enabled = fields.choice("enabled", ("true", "false"))
        values["is_enabled"] = None if enabled is None else enabled == "true"
    if code is None or None in values.values():
        return None
    return WantedFeed(place, code, values)


def _folder(fields: Fields, reading: Reading) -> str | None:
    """An absolute path on the machines that read feeds; empty when none is watched."""
    folder = fields.substituted("folder", reading.environ)
    if folder is None:
        return None
    if folder and not folder.startswith("/"):
        fields.wrong("folder", "must be an absolute path")
        return None
    if len(folder) > MAX_FOLDER_LENGTH or not folder.isprintable():
        fields.wrong("folder", f"must be one line of at most {MAX_FOLDER_LENGTH} characters")
        return None
    return folder


def _options(fields: Fields) -> dict[str, object]:
    """As the feed's reader takes them, which also says what of them is wrong."""
    options: dict[str, object] = {}
    for name in ("columns", "finishes"):
        if fields.has(name):
            options[name] = fields.pairs(name, limit=_MAX_NAMES, high=_MAX_NAME_LENGTH)
    if fields.has("header"):
        form = "the name of a column"
        options["header"] = fields.texts(
            "header", limit=_MAX_NAMES, high=_MAX_NAME_LENGTH, pattern=r"[^\x00-\x1f]+", form=form
        )
    if fields.has("delimiter"):
        delimiter = fields.scalar("delimiter")
        options["delimiter"] = None if delimiter is None else delimiter.text
    if fields.has("time_unit"):
        options["time_unit"] = fields.text("time_unit", high=16)
    return {name: value for name, value in options.items() if value is not None}
