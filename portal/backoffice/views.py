"""Operators' pages. The middleware lets operators in and opens their scope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from portal.kit.clock import utc_now
from portal.pages.tags import count_text
from quotas.reconciliation.queries import witness_report
from quotas.reconciliation.witness import (
    BackendWitness,
    Bounds,
    Cause,
    CauseKind,
    Comparison,
    Witness,
    WitnessState,
)

Text = str | Promise

MINUS: Final = "\u2212"
WINDOWS: Final[Mapping[str, Text]] = {"hour": _("Last hour"), "today": _("Today, UTC"), "day": _("24 hours")}
STATES: Final[Mapping[WitnessState, tuple[str, Text]]] = {
    WitnessState.AGREES: ("ok", _("Agrees")),
    WitnessState.EXPLAINED: ("quiet", _("Explained")),
    WitnessState.INCOMPLETE: ("warn", _("Incomplete")),
    WitnessState.MOVING: ("quiet", _("In motion")),
    WitnessState.UNEXPLAINED: ("bad", _("Unexplained")),
    WitnessState.WAITING: ("quiet", _("Waiting for samples")),
    WitnessState.UNREADABLE: ("warn", _("No counters")),
}
CAUSES: Final[Mapping[CauseKind, tuple[Text, Text]]] = {
    CauseKind.IN_FLIGHT: (
        _("In flight"),
        _("The backend may have counted them already, the gateway has not."),
    ),
    CauseKind.ACROSS_START: (
        _("Across the start"),
        _("Under way when the window began, so counted partly before it."),
    ),
    CauseKind.CLIENT_GONE: (
        _("Client left"),
        _("What the backend generated until it noticed is billed to nobody."),
    ),
    CauseKind.CUT: (
        _("Cut"),
        _("Ended by the gateway: a time limit, a lost lease, a restart."),
    ),
    CauseKind.TIMEOUT: (
        _("Too slow"),
        _("The gateway stopped waiting for the backend."),
    ),
    CauseKind.FAILED: (
        _("Broken off"),
        _("What the backend had generated when it failed was not reported."),
    ),
    CauseKind.LOST: (
        _("Lost"),
        _("A gateway process died, and nobody read what the backend went on to generate."),
    ),
    CauseKind.NO_FINAL_USAGE: (
        _("No final usage"),
        _("The backend completed the answer without saying what it used."),
    ),
    CauseKind.CACHED_UNKNOWN: (
        _("Cached unknown"),
        _("This engine's counters leave out cached tokens without saying how many."),
    ),
}


@dataclass(frozen=True, slots=True)
class SideRow:
    """One class of tokens as the table shows it."""

    name: Text
    counted_tokens: int
    metered_tokens: int
    difference: str
    unexplained: str
    is_unexplained: bool


@dataclass(frozen=True, slots=True)
class CauseRow:
    """One cause of a difference, with the bounds of what it can account for."""

    name: Text
    text: Text
    attempts: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class LifeRow:
    """One incarnation of a backend's process."""

    incarnation: int
    from_at: datetime
    to_at: datetime
    attempts: int
    in_flight: int
    running: int | None
    is_at_rest: bool
    tone: str
    word: Text
    sides: tuple[SideRow, ...]
    causes: tuple[CauseRow, ...]


@dataclass(frozen=True, slots=True)
class BackendRow:
    backend: BackendWitness
    tone: str
    word: Text
    read_ago_s: float | None
    failing_ago_s: float | None
    lives: tuple[LifeRow, ...]


@require_safe
def witness(request: HttpRequest) -> HttpResponse:
    """Counters beside metering, per backend; htmx asks for the table alone."""
    chosen = request.GET.get("window", "")
    chosen = chosen if chosen in WINDOWS else "hour"
    now = utc_now()
    context: dict[str, Any] = {
        "section": "reconciliation",
        "tab": "witness",
        "windows": WINDOWS,
        "window": chosen,
        "now": now,
    }
    try:
        report = witness_report(
            now=now,
            window=_window(chosen, now),
            sample_s=settings.TUNING.get("SLUICE_SAMPLE_S", 15),
            call_timeout_s=settings.TUNING["SLUICE_CALL_TIMEOUT_S"],
        )
    except OperationalError:
        # Of all the ways to fail this one has to be said: a table that stands still looks like peace.
        context["has_failed"] = True
    else:
        context["rows"] = [_backend_row(backend, now) for backend in report]
        context["summary"] = _summary(report)
    is_fragment = getattr(request, "htmx", False)
    return render(request, f"backoffice/{'witness_table' if is_fragment else 'witness'}.html", context)


def _window(name: str, now: datetime) -> timedelta:
    if name == "today":
        return max(now - now.replace(hour=0, minute=0, second=0, microsecond=0), timedelta(seconds=1))
    return timedelta(hours=24 if name == "day" else 1)


def _summary(report: Sequence[BackendWitness]) -> dict[str, Any]:
    lives = [life for backend in report for life in backend.witnesses]
    sides = [side for life in lives for side in (life.prompt, life.completion)]
    return {
        "backends": len(report),
        "explained": sum(1 for one in report if one.state in (WitnessState.AGREES, WitnessState.EXPLAINED)),
        "unexplained_tokens": sum(abs(side.unexplained_tokens) for side in sides),
        "counted_tokens": sum(side.counted_tokens for side in sides),
        "unread": sum(1 for one in report if one.is_stale),
    }


def _backend_row(backend: BackendWitness, now: datetime) -> BackendRow:
    tone, word = STATES[backend.state]
    return BackendRow(
        backend=backend,
        tone=tone,
        word=word,
        read_ago_s=(now - backend.read_at).total_seconds() if backend.read_at else None,
        failing_ago_s=(now - backend.failing_since).total_seconds() if backend.failing_since else None,
        lives=tuple(_life_row(life) for life in backend.witnesses),
    )


def _life_row(life: Witness) -> LifeRow:
    tone, word = STATES[life.state]
    return LifeRow(
        incarnation=life.incarnation,
        from_at=life.from_at,
        to_at=life.to_at,
        attempts=life.attempts,
        in_flight=life.in_flight,
        running=life.running,
        is_at_rest=life.is_at_rest,
        tone=tone,
        word=word,
        sides=(_side_row(_("Prompt"), life.prompt), _side_row(_("Completion"), life.completion)),
        causes=tuple(_cause_row(cause) for cause in life.causes),
    )


def _side_row(name: Text, side: Comparison) -> SideRow:
    return SideRow(
        name=name,
        counted_tokens=side.counted_tokens,
        metered_tokens=side.metered_tokens,
        difference=signed(side.difference_tokens),
        unexplained=signed(side.unexplained_tokens),
        is_unexplained=side.unexplained_tokens != 0,
    )


def _cause_row(cause: Cause) -> CauseRow:
    name, text = CAUSES[cause.kind]
    return CauseRow(name, text, cause.attempts, _bounds(cause.prompt), _bounds(cause.completion))


def _bounds(bounds: Bounds) -> str:
    if bounds.low == bounds.high:
        return signed(bounds.low)
    return f"{signed(bounds.low)} … {signed(bounds.high)}"


def signed(tokens: int) -> str:
    """`+1,234`, `−5`, `0`: a difference says its direction without a colour."""
    text = count_text(abs(tokens))
    return f"+{text}" if tokens > 0 else f"{MINUS}{text}" if tokens < 0 else text
