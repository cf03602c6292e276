"""The embedded services of one instance, those that the environment does not name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from devstack.datadir import DataDir
from devstack.model_server import ModelServer
from devstack.postgres import Postgres
from devstack.process import Pause
from devstack.service import Service
from devstack.simulated_engine import SimulatedEngine
from devstack.stripe_standin.service import StripeStandin
from devstack.valkey import Valkey

# In the order in which they start; the variable names a server of the operator's own.
_SERVICES: Sequence[tuple[str, type[Service]]] = (
    ("DATABASE_URL", Postgres),
    ("VALKEY_URL", Valkey),
    ("CATALOG_FILE", ModelServer),
    ("CATALOG_FILE", SimulatedEngine),
    ("STRIPE_SECRET_KEY", StripeStandin),
)
# What the built-in catalog sells.
_MODELS: tuple[type[Service], ...] = (ModelServer, SimulatedEngine)


class EmbeddedServices:
    """Starts what is not configured. After `start`, even a failed one, the caller has to call `stop`."""

    def __init__(
        self, data_dir: DataDir, *, port_seed: int, with_model: bool = True, pause: Pause = time.sleep
    ) -> None:
        self.services: list[Service] = [
            service_class(data_dir, port_seed=port_seed, avoid_ports=(port_seed, port_seed + 1), pause=pause)
            for variable, service_class in _SERVICES
            if not os.environ.get(variable) and (with_model or service_class not in _MODELS)
        ]

    def start(self, started: Callable[[Service], None] = lambda service: None) -> None:
        """Starts them one after the other and reports each; DevstackError when one does not start."""
        for service in self.services:
            service.start()
            started(service)

    def is_started(self) -> bool:
        return any(service.child for service in self.services)

    def environment(self) -> dict[str, str]:
        """The variables that lead to the started services."""
        values: dict[str, str] = {}
        for service in self.services:
            values |= service.environment()
        return values

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops them in the reverse order: the database, which the others may still use, comes last."""
        for service in reversed(self.services):
            service.stop(hurry)


def named_by_environment() -> list[str]:
    """The variables that name a server of the operator's own, so that we start none."""
    return [variable for variable in dict(_SERVICES) if os.environ.get(variable)]
