"""Pushed usage feeds: signed CloudEvents, NDJSON and CSV, and spans by OTLP with a bearer token."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from models_catalog.engines.feeds import FeedFormat, UnknownContentType, UnreadableLine
from portal.ingest import otlp
from portal.ingest.bodies import MAX_OTLP_BYTES, BodyRefused, sent_body, unpacked
from portal.ingest.failures import WINDOW_S, too_many_failures
from quotas.reconciliation.ingest.credentials import feed_of_token, is_signed_by, is_token_of
from quotas.reconciliation.ingest.pushes import FeedNotReady, Pushed, TooManyUnreadable, take_push
from quotas.reconciliation.ingest.source import FeedSource, UnknownFeed, feed_source, feeds_named
from quotas.reconciliation.ingest.taking import BadCompleteTo
from tenants import queries as tenant_queries
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

MAX_PROBLEMS_TOLD: Final = 100
_MAX_NAME: Final = 64


class _Refused(Exception):
    """What is wrong with a push, without anything of what it says."""

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.detail = detail


@csrf_exempt
@require_POST
def cloudevents(request: HttpRequest, feed: str) -> HttpResponse:
    """One structured event, or a batch."""
    return _signed_push(request, feed, FeedFormat.CLOUDEVENTS)


@csrf_exempt
@require_POST
def ndjson(request: HttpRequest, feed: str) -> HttpResponse:
    return _signed_push(request, feed, FeedFormat.NDJSON)


@csrf_exempt
@require_POST
def csv(request: HttpRequest, feed: str) -> HttpResponse:
    return _signed_push(request, feed, FeedFormat.CSV)


@csrf_exempt
@require_POST
def otlp_traces(request: HttpRequest) -> HttpResponse:
    """Spans, as an exporter of OpenTelemetry sends them. The token says of which feed they are."""
    content_type = request.headers.get("Content-Type", "")
    try:
        with role_scope("ingest"):
            feed = _feed_of_bearer(request)
            sent = sent_body(request, most=MAX_OTLP_BYTES)
            body = unpacked(sent, request.headers.get("Content-Encoding", ""), most=MAX_OTLP_BYTES)
            pushed = _take(feed, body, content_type, None)
    except (_Refused, BodyRefused) as refused:
        _log(refused, "otlp")
        answer = otlp.refused(content_type=content_type, status=refused.status, reason=refused.reason)
        return _hurried(answer, refused.status)
    rejected = pushed.taken.quarantined
    message = ", ".join(sorted({problem.reason for problem in pushed.problems}))
    return otlp.accepted(content_type=content_type, rejected=rejected, message=message)


for _view in (cloudevents, ndjson, csv, otlp_traces):
    setattr(_view, "methods", ("POST",))  # noqa: B010 - which tests read; a function has no such attribute


def _signed_push(request: HttpRequest, name: str, format: FeedFormat) -> HttpResponse:
    try:
        with role_scope("ingest"):
            sent = sent_body(request)
            feed = _feed_that_signed(request, name, format, sent)
            body = unpacked(sent, request.headers.get("Content-Encoding", ""))
            content_type = request.headers.get("Content-Type", "")
            pushed = _take(feed, body, content_type, _complete_to(request))
    except (_Refused, BodyRefused) as refused:
        _log(refused, format.value)
        told = {"error": refused.reason, "detail": getattr(refused, "detail", "")}
        return _hurried(JsonResponse(told, status=refused.status), refused.status)
    return JsonResponse(_told(pushed))


def _feed_that_signed(request: HttpRequest, name: str, format: FeedFormat, body: bytes) -> FeedSource:
    """The feed of this name that the body is signed for. Errors: _Refused, alike for whatever does not
    fit."""
    is_name = 0 < len(name) <= _MAX_NAME and name.isprintable()
    candidates: Sequence[FeedSource | None] = feeds_named(name=name, format=format) if is_name else ()
    for feed in candidates or (None,):
        if is_signed_by(
            feed,
            timestamp=request.headers.get("Sluice-Timestamp", ""),
            complete_to=request.headers.get("Sluice-Complete-To", ""),
            signature=request.headers.get("Sluice-Signature", ""),
            body=body,
            now_s=time.time(),
            secrets=settings.SECRET_STORE,
        ):
            assert feed is not None
            return feed
    raise _unproven(request)


def _feed_of_bearer(request: HttpRequest) -> FeedSource:
    """Errors: _Refused."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip() if kind.lower() == "bearer" else ""
    feed_id = feed_of_token(token)
    feed = None
    if feed_id is not None:
        try:
            feed = feed_source(feed_id)
        except UnknownFeed:
            feed = None
    if not is_token_of(feed, token=token, secrets=settings.SECRET_STORE):
        raise _unproven(request)
    assert feed is not None
    if feed.format != FeedFormat.VLLM_OTLP:
        raise _Refused(409, "other_format", f"the feed's format is {feed.format.value}")
    return feed


def _unproven(request: HttpRequest) -> _Refused:
    if too_many_failures(request):
        return _Refused(429, "too_many_failures")
    return _Refused(401, "unauthorized", "unknown feed, wrong credential or signature, or a stale timestamp")


def _take(feed: FeedSource, body: bytes, content_type: str, complete_to: datetime | None) -> Pushed:
    """Errors: _Refused."""
    try:
        return take_push(
            feed=feed,
            body=body,
            content_type=content_type,
            now=tenant_queries.database_time(),
            complete_to=complete_to,
        )
    except UnknownContentType as error:
        raise _Refused(415, "unknown_content_type", f"known are {error}") from None
    except UnreadableLine as error:
        raise _Refused(400, error.reason, error.detail) from None
    except BadCompleteTo as error:
        raise _Refused(400, "bad_complete_to", str(error)) from None
    except TooManyUnreadable as error:
        raise _Refused(400, "too_many_unreadable", str(error)) from None
    except FeedNotReady as error:
        raise _Refused(409, "feed_not_ready", str(error)) from None
    except OperationalError:
        raise _Refused(503, "busy", "nothing was taken; send it again") from None


def _complete_to(request: HttpRequest) -> datetime:
    """What the headers of a signed body say; without a word, when it was signed. Errors: _Refused."""
    text = request.headers.get("Sluice-Complete-To", "")
    if not text:
        signed_at = datetime.fromtimestamp(int(request.headers["Sluice-Timestamp"]), UTC)
        return min(signed_at, tenant_queries.database_time())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _Refused(400, "bad_complete_to", "a moment with its offset from UTC")
    return moment


def _told(pushed: Pushed) -> dict[str, Any]:
    taken = pushed.taken
    return {
        "taken": taken.entries,
        "new": taken.inserted,
        "known": taken.known,
        "quarantined": taken.quarantined,
        "problems": [
            {"index": problem.index, "reason": problem.reason, "detail": problem.detail}
            for problem in pushed.problems[:MAX_PROBLEMS_TOLD]
        ],
    }


def _log(refused: _Refused | BodyRefused, way: str) -> None:
    logger.warning(
        "portal.ingest.refused", extra={"reason": refused.reason, "status": refused.status, "way": way}
    )


def _hurried(answer: HttpResponse, status: int) -> HttpResponse:
    """With when to come back."""
    if status in (429, 503):
        answer["Retry-After"] = str(WINDOW_S if status == 429 else 5)
    return answer
