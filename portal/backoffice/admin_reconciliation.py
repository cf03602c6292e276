"""The Django admin's read-only pages of reconciliation: feeds, what they said, and what came of it."""

from django.contrib import admin

from models_catalog.models import UsageFeed
from portal.backoffice.read_only import read_only
from quotas.models import (
    BillBundle,
    ControlWindow,
    Discrepancy,
    FeedFile,
    FeedQuarantine,
    FeedState,
    SuspenseItem,
)

site = admin.site

site.register(
    UsageFeed,
    read_only(
        "id",
        "code",
        "backend",
        "format",
        "folder",
        "grace_s",
        "is_enabled",
        hidden=("credential_encrypted",),
        search=("code",),
        filters=("format", "is_enabled"),
        id_prefix="feed",
    ),
)
site.register(FeedState, read_only("feed", "complete_to", "heard_at", "error", newest_first=False))
site.register(
    FeedFile,
    read_only("id", "feed", "name", "offset", "lines", "entries", "quarantined", "read_at", "is_closed"),
)
site.register(
    FeedQuarantine,
    read_only(
        "id",
        "feed",
        "file",
        "offset",
        "length",
        "reason",
        "detail",
        "state",
        "received_at",
        hidden=("sha256", "body"),
        filters=("state", "reason"),
        id_prefix="feed_line",
    ),
)
site.register(
    Discrepancy,
    read_only(
        "id",
        "kind",
        "state",
        "tenant",
        "backend",
        "event_at",
        "delta_nanos",
        "is_late",
        "revision",
        "resolved_by",
        filters=("state", "kind"),
        id_prefix="discrepancy",
    ),
)
site.register(
    SuspenseItem,
    read_only(
        "id",
        "kind",
        "state",
        "backend",
        "event_at",
        "prompt_tokens",
        "completion_tokens",
        "resolved_by",
        filters=("state", "kind"),
        id_prefix="suspense",
    ),
)
site.register(
    ControlWindow,
    read_only("id", "backend", "incarnation", "from_at", "to_at", "state", "attempts", filters=("state",)),
)
site.register(
    BillBundle,
    read_only(
        "id",
        "tenant",
        "from_at",
        "to_at",
        "state",
        "lines_done",
        "made_at",
        "size_bytes",
        hidden=("sha256",),
        filters=("state",),
        id_prefix="bundle",
    ),
)
