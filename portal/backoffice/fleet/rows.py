"""The fleet as its pages show it: words and lamps beside the numbers of the domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from models_catalog.fleet.queries import BackendRow, CostRow, DeploymentRow, Phase, PoolRow
from models_catalog.models import Engine, FleetState
from portal.backoffice.fleet.gateways import GatewayView, views_of
from portal.inference.fleet_state import GatewayWord
from quotas.metering.queries.fleet_health import BackendHealth

Text = str | Promise

# Of attempts that failed lately: from here on somebody should look, and from here on it does not serve.
WARN_SHARE: Final = 0.05
BAD_SHARE: Final = 0.5

ENGINE_NAMES: Final[Mapping[Engine, Text]] = {
    Engine.VLLM: "vLLM",
    Engine.SGLANG: "SGLang",
    Engine.LLAMACPP: "llama.cpp",
    Engine.GENERIC: _("Generic"),
}
STATES: Final[Mapping[FleetState, tuple[str, Text]]] = {
    FleetState.ACTIVE: ("ok", _("Active")),
    FleetState.DRAINING: ("warn", _("Draining")),
    FleetState.DISABLED: ("quiet", _("Disabled")),
}
PHASES: Final[Mapping[Phase, tuple[str, Text]]] = {
    Phase.CURRENT: ("ok", _("In force")),
    Phase.PLANNED: ("warn", _("Planned")),
    Phase.ENDED: ("quiet", _("Ended")),
    Phase.WITHDRAWN: ("quiet", _("Withdrawn")),
}


@dataclass(frozen=True, slots=True)
class Lamp:
    """A badge: its tone and its word."""

    tone: str
    word: Text


@dataclass(frozen=True, slots=True)
class ShownDeployment:
    """A deployment with its lamp and its part of the pool."""

    row: DeploymentRow
    state: Lamp


@dataclass(frozen=True, slots=True)
class ShownBackend:
    """A backend beside its health, which is None when that could not be read."""

    row: BackendRow
    health: BackendHealth | None
    state: Lamp
    lamp: Lamp
    deployments: tuple[ShownDeployment, ...]
    gateways: tuple[GatewayView, ...] = ()

    @property
    def engine_name(self) -> Text:
        return ENGINE_NAMES[Engine(self.row.engine)]

    @property
    def load_tone(self) -> str:
        load = self.health.load if self.health else 0
        return "meter-bad" if load >= 1 else "meter-warn" if load >= 0.8 else ""

    @property
    def failed_percent(self) -> str:
        """Of the last five minutes; a dash when nothing ended."""
        share = self.health.recent.failed_share if self.health else None
        return "–" if share is None else f"{share * 100:.1f}"

    @property
    def failed_percent_of_hour(self) -> str:
        share = self.health.longer.failed_share if self.health else None
        return "–" if share is None else f"{share * 100:.1f}"

    @property
    def tokens_per_s(self) -> str:
        return f"{self.health.recent.output_tokens_per_s:,.1f}" if self.health else "–"


@dataclass(frozen=True, slots=True)
class CostPart:
    """One part of what an hour costs."""

    key: str
    name: Text
    nanos: int
    percent: str


@dataclass(frozen=True, slots=True)
class ShownPool:
    """A pool with its backends as they are shown."""

    row: PoolRow
    backends: tuple[ShownBackend, ...]
    parts: tuple[CostPart, ...]


def show_pool(
    row: PoolRow, health: Mapping[UUID, BackendHealth], words: Sequence[GatewayWord] = ()
) -> ShownPool:
    """A pool beside the health of its backends, and what gateways say of them."""
    backends = tuple(show_backend(backend, health.get(backend.id), words) for backend in row.backends)
    return ShownPool(row, backends, cost_parts(row.cost) if row.cost else ())


def show_backend(
    row: BackendRow, health: BackendHealth | None, words: Sequence[GatewayWord] = ()
) -> ShownBackend:
    """A backend beside its health, and what gateways say of it."""
    gateways = views_of(row, words)
    return ShownBackend(
        row=row,
        health=health,
        state=Lamp(*STATES[row.state]),
        lamp=health_lamp(row, health, gateways),
        deployments=tuple(show_deployment(deployment) for deployment in row.deployments),
        gateways=gateways,
    )


def show_deployment(row: DeploymentRow) -> ShownDeployment:
    """A deployment with the lamp of its own state."""
    return ShownDeployment(row, Lamp(*STATES[row.state]))


def health_lamp(row: BackendRow, health: BackendHealth | None, gateways: Sequence[GatewayView] = ()) -> Lamp:
    """In one word how the backend does, the worst first."""
    if row.state != FleetState.DISABLED:
        if any(one.is_down for one in gateways):
            return Lamp("bad", _("Does not answer"))
        if any(one.is_troubled for one in gateways):
            return Lamp("bad", _("Left alone"))
    if health is None:
        return Lamp("quiet", _("Unknown"))
    share = health.recent.failed_share
    if share is not None and share >= BAD_SHARE:
        return Lamp("bad", _("Failing"))
    if share is not None and share >= WARN_SHARE:
        return Lamp("warn", _("Errors"))
    if row.state == FleetState.DISABLED:
        return Lamp("quiet", _("Off"))
    if health.recent.attempts or health.in_flight:
        return Lamp("ok", _("Serving"))
    if health.sample_at is None or health.sample_error:
        return Lamp("quiet", _("No counters"))
    return Lamp("ok", _("Idle"))


def cost_parts(cost: CostRow) -> tuple[CostPart, ...]:
    """What an hour is made of; the shares are for reading, the amounts add up."""
    total = cost.hour.total_nanos
    parts: tuple[tuple[str, Text, int], ...] = (
        ("depreciation", _("Depreciation"), cost.hour.depreciation_nanos),
        ("energy", _("Energy"), cost.hour.energy_nanos),
        ("other", _("Other"), cost.hour.other_nanos),
    )
    return tuple(
        CostPart(key, name, nanos, f"{nanos * 100 / total:.1f}" if total else "0.0")
        for key, name, nanos in parts
    )
