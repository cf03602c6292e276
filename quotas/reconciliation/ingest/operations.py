"""What operators do to feeds: credentials, switching off, and lines in quarantine."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from models_catalog.engines.feeds import FeedFormat
from models_catalog.models import ServingBackend, UsageFeed, feed_code
from portal.kit.ids import PREFIXES, public_id
from portal.kit.secrets import SecretStore
from quotas.models import FeedQuarantine, QuarantineState
from quotas.reconciliation.ingest.credentials import new_token
from quotas.reconciliation.ingest.quarantine import (
    NothingToReadAgain,
    NotOpen,
    UnknownLine,
    read_again,
    way_of_line,
)
from quotas.reconciliation.ingest.source import FeedSource, UnknownFeed, feed_source
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

__all__ = [
    "BackendNotFound",
    "NotOpen",
    "NothingToReadAgain",
    "UnknownFeed",
    "UnknownLine",
    "dismiss_line",
    "ensure_feed",
    "issue_feed_credential",
    "retry_line",
    "set_feed_enabled",
]


class BackendNotFound(LookupError):
    """There is no backend of this code."""


def ensure_feed(*, backend_code: str, format: FeedFormat, code: str = "", actor: audit.Actor) -> FeedSource:
    """The feed of a backend in a format, made when it is not there: `<backend>-<format>`, or of this code.

    Runs in the operator's scope. Errors: BackendNotFound; UnknownFeed, when the code is another feed's.
    """
    code = code or feed_code(backend_code, format.value)
    with transaction.atomic(using=scope_alias()):
        backend = ServingBackend.objects.filter(code=backend_code).first()
        if backend is None:
            raise BackendNotFound(f"there is no backend {backend_code}")
        feed, is_new = UsageFeed.objects.get_or_create(
            code=code, defaults={"backend": backend, "format": format.value}
        )
        if feed.backend_id != backend.id or feed.format != format.value:
            raise UnknownFeed(f"the feed {code} is of another backend or format")
        if is_new:
            audit.record(
                actor=actor,
                action="feed.create",
                target=public_id(PREFIXES["feed"], feed.id),
                after={"code": code, "backend": backend_code, "format": format.value},
                reason="for a feed that was read by hand",
            )
        return feed_source(feed.id)


def issue_feed_credential(
    *, feed_id: UUID, actor: audit.Actor, reason: str, now: datetime, secrets: SecretStore
) -> str:
    """A new credential for pushing to the feed, to be shown once; the one before is worth nothing from now
    on.

    Runs in the operator's scope. Errors: UnknownFeed, ReasonMissing.
    """
    del now
    reason = audit.checked_reason(reason)
    token = new_token(feed_id)
    with transaction.atomic(using=scope_alias()):
        feed = _locked_feed(feed_id)
        had_one = bool(feed.credential_encrypted)
        feed.credential_encrypted = secrets.encrypt(token)
        feed.save(update_fields=["credential_encrypted"])
        audit.record(
            actor=actor,
            action="feed.credential",
            target=public_id(PREFIXES["feed"], feed_id),
            before={"credential": had_one},
            after={"credential": True},
            reason=reason,
        )
    return token


def set_feed_enabled(
    *, feed_id: UUID, is_enabled: bool, actor: audit.Actor, reason: str, now: datetime
) -> None:
    """Whether the feed is read and may be pushed to. Runs in the operator's scope. Errors: UnknownFeed,
    ReasonMissing."""
    del now
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        feed = _locked_feed(feed_id)
        if feed.is_enabled == is_enabled:
            return
        feed.is_enabled = is_enabled
        feed.save(update_fields=["is_enabled"])
        audit.record(
            actor=actor,
            action="feed.enable" if is_enabled else "feed.disable",
            target=public_id(PREFIXES["feed"], feed_id),
            before={"is_enabled": not is_enabled},
            after={"is_enabled": is_enabled},
            reason=reason,
        )


def retry_line(*, line_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> QuarantineState:
    """Read a quarantined line again from its file; READ when it has been taken now, OPEN when it cannot be.

    Opens the dataplane role's scope. Errors: UnknownLine, NotOpen, NothingToReadAgain, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with role_scope("dataplane"), transaction.atomic(using=scope_alias()):
        state = read_again(way=way_of_line(line_id=line_id, now=now), line_id=line_id, now=now)
        if state != QuarantineState.OPEN:
            _record_line(actor, "feed.line_retry", line_id, state, reason)
        return state


def dismiss_line(*, line_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> None:
    """Say that nothing can or need be made of a quarantined line. Opens the dataplane role's scope.

    Errors: UnknownLine, NotOpen, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with role_scope("dataplane"), transaction.atomic(using=scope_alias()):
        dismissed = FeedQuarantine.objects.filter(id=line_id, state=QuarantineState.OPEN).update(
            state=QuarantineState.DISMISSED, resolved_at=now, note=reason
        )
        if not dismissed:
            if not FeedQuarantine.objects.filter(id=line_id).exists():
                raise UnknownLine("there is no such line")
            raise NotOpen("it has been resolved")
        _record_line(actor, "feed.line_dismiss", line_id, QuarantineState.DISMISSED, reason)


def _record_line(actor: audit.Actor, action: str, line_id: UUID, state: QuarantineState, reason: str) -> None:
    audit.record(
        actor=actor,
        action=action,
        target=public_id(PREFIXES["feed_line"], line_id),
        before={"state": QuarantineState.OPEN.value},
        after={"state": state.value},
        reason=reason,
    )


def _locked_feed(feed_id: UUID) -> UsageFeed:
    feed = UsageFeed.objects.select_for_update().filter(id=feed_id).first()
    if feed is None:
        raise UnknownFeed("there is no such feed")
    return feed
