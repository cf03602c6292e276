"""How backends do: calls in flight, and what attempts came to lately."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from rest_framework import serializers

from models_catalog.fleet.queries import BackendRow
from models_catalog.models import FleetState
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, Page, PublicId, page_of
from portal.api.operations import operation
from portal.api.operators.fleet_answers import TAG, page_by
from portal.api.operators.fleet_backends import PARTS, backends_of, find_backend
from portal.pages.access import parse_id
from quotas.metering.queries.fleet_health import BackendHealth, backend_health
from tenants.models import ManagementScope


class HealthParameters(Page):
    pool = PublicId(kind="pool", required=False, help_text="Only backends of one pool.")


class CallWindowAnswer(serializers.Serializer[Any]):
    """Attempts that ended within so many seconds up to now."""

    seconds = serializers.IntegerField()
    attempts = serializers.IntegerField()
    failed = serializers.IntegerField()
    timeouts = serializers.IntegerField()
    failed_share = serializers.FloatField(allow_null=True, help_text="With timeouts; null when none ended.")
    ttft_p50_ms = serializers.IntegerField(
        allow_null=True, help_text="Half of them had their first token by then."
    )
    output_tokens = serializers.IntegerField()
    output_tokens_per_s = serializers.FloatField()


class BackendHealthAnswer(serializers.Serializer[Any]):
    """How a backend does. sample_at: when its own counters were last read; sample_error: why that has failed
    since; running: what it said to have running then."""

    backend = PublicId(kind="backend")
    code = serializers.CharField()
    pool = PublicId(kind="pool")
    state = serializers.ChoiceField(choices=FleetState.choices)
    in_flight = serializers.IntegerField()
    max_concurrency = serializers.IntegerField()
    recent = CallWindowAnswer()
    longer = CallWindowAnswer()
    sample_at = Moment(allow_null=True)
    sample_error = serializers.CharField(allow_blank=True)
    running = serializers.IntegerField(allow_null=True)


BackendHealthPageAnswer = page_of(BackendHealthAnswer, "BackendHealthPageAnswer")


class BackendHealthList(OperatorEndpoint):
    @operation(
        id="listBackendHealth",
        summary="List how backends do",
        tag=TAG,
        action="backend.list",
        scope=ManagementScope.FLEET_READ,
        parameters=HealthParameters,
        answer=BackendHealthPageAnswer,
    )
    def get(self, call: Call) -> Answer:
        """Calls in flight, errors, times and tokens of each backend lately, by code."""
        health = _health(call)
        return page_by(
            call.listing,
            [row for row in backends_of(call) if row.id in health],
            key=lambda row: row.code,
            shown=lambda row: _shown_health(row, health[row.id]),
        )


class BackendHealthDetail(OperatorEndpoint):
    @operation(
        id="getBackendHealth",
        summary="Read how a backend does",
        tag=TAG,
        action="backend.read",
        scope=ManagementScope.FLEET_READ,
        parts=PARTS,
        answer=BackendHealthAnswer,
    )
    def get(self, call: Call, backend: str) -> Answer:
        """Calls in flight, and errors, times and tokens lately."""
        found = find_backend(call, parse_id("backend", backend))
        return Answer(_shown_health(found, _health(call)[found.id]))


def _health(call: Call) -> dict[UUID, BackendHealth]:
    return backend_health(now=call.now, call_timeout_s=settings.TUNING["SLUICE_CALL_TIMEOUT_S"])


def _shown_health(row: BackendRow, health: BackendHealth) -> Any:
    windows = {
        name: {
            "seconds": int(window.span.total_seconds()),
            "attempts": window.attempts,
            "failed": window.failed,
            "timeouts": window.timeouts,
            "failed_share": window.failed_share,
            "ttft_p50_ms": window.ttft_p50_ms,
            "output_tokens": window.output_tokens,
            "output_tokens_per_s": window.output_tokens_per_s,
        }
        for name, window in (("recent", health.recent), ("longer", health.longer))
    }
    content = {
        "backend": row.id,
        "code": row.code,
        "pool": row.pool_id,
        "state": row.state,
        "in_flight": health.in_flight,
        "max_concurrency": health.max_concurrency,
        **windows,
        "sample_at": health.sample_at,
        "sample_error": health.sample_error,
        "running": health.running,
    }
    return BackendHealthAnswer(content).data
