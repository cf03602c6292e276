"""What gateways say of backends and deployments: whom they send nothing, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from redis import Redis
from redis.exceptions import RedisError

from models_catalog.fleet.queries import BackendRow
from portal.inference.breaker import BreakerState
from portal.inference.fleet_state import DeploymentWord, GatewayWord, read_gateways
from portal.kit import valkey
from portal.kit.clock import utc_now

logger = logging.getLogger(__name__)

Text = str | Promise

# Why a breaker opened: the outcome of the last of the failed attempts.
REASONS: Final[dict[str, Text]] = {
    "UNREACHABLE": _("could not be reached"),
    "BACKEND_TIMEOUT": _("did not answer in time"),
    "BACKEND_FAILED": _("answered with errors"),
}
BREAKERS: Final[dict[BreakerState, tuple[str, Text]]] = {
    BreakerState.CLOSED: ("ok", _("In use")),
    BreakerState.HALF_OPEN: ("warn", _("Tried with one call")),
    BreakerState.OPEN: ("bad", _("Left alone")),
}


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """What one gateway says of one deployment. Percentages: how long its calls take lately, of what is
    expected."""

    slug: str
    tone: str
    word: Text
    reason: Text
    for_s: float
    in_flight: int
    ttft_percent: int
    inter_token_percent: int
    without_usage: int


@dataclass(frozen=True, slots=True)
class GatewayView:
    """What one gateway says of one backend."""

    name: str
    is_down: bool
    reason: str
    for_s: float
    deployments: tuple[DeploymentView, ...]

    @property
    def is_troubled(self) -> bool:
        return self.is_down or any(one.tone != "ok" for one in self.deployments)


def read_words() -> list[GatewayWord] | None:
    """What every gateway says; None when it cannot be read."""
    try:
        return read_gateways(_client(), now_s=utc_now().timestamp())
    except (RedisError, OSError) as error:
        logger.info("backoffice.fleet.no_gateways", extra={"reason": type(error).__name__})
        return None


def views_of(row: BackendRow, words: Sequence[GatewayWord]) -> tuple[GatewayView, ...]:
    """What each gateway says of a backend; those that know nothing of it are left out."""
    return tuple(
        GatewayView(
            word.name,
            backend.is_down,
            backend.reason,
            backend.for_s,
            tuple(
                _deployment(deployment.slug, said)
                for deployment in row.deployments
                if (said := word.deployments.get(deployment.id)) is not None
            ),
        )
        for word in words
        if (backend := word.backends.get(row.id)) is not None
    )


def _deployment(slug: str, said: DeploymentWord) -> DeploymentView:
    tone, name = BREAKERS[said.breaker]
    return DeploymentView(
        slug=slug,
        tone=tone,
        word=name,
        reason="" if said.breaker is BreakerState.CLOSED else REASONS.get(said.reason, said.reason),
        for_s=said.for_s,
        in_flight=said.in_flight,
        ttft_percent=round(said.ttft_factor * 100),
        inter_token_percent=round(said.inter_token_factor * 100),
        without_usage=said.without_usage,
    )


@cache
def _client() -> Redis:
    return valkey.connect_sync(settings.VALKEY_URL)
