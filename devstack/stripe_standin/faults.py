"""Which request goes wrong, and how: by chance, or the next ones by command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from devstack.stripe_standin.settings import REQUEST_FAULTS
from devstack.stripe_standin.world import World


@dataclass(slots=True)
class Planned:
    """The next `times` requests whose "METHOD /path" the pattern matches."""

    pattern: re.Pattern[str]
    fault: str
    times: int


class Faults:
    """Planned faults are kept in memory only: a restart ends them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._planned: list[Planned] = []

    def plan(self, pattern: str, fault: str, times: int) -> None:
        """Raises ValueError for a pattern or a fault that isn't one."""
        if fault not in REQUEST_FAULTS:
            raise ValueError(f"no such fault: {fault}; there are {', '.join(REQUEST_FAULTS)}")
        self._planned.append(Planned(re.compile(pattern), fault, times))

    def clear(self) -> None:
        self._planned.clear()

    def of(self, request: str) -> str | None:
        """The fault that this request meets, or None."""
        for planned in self._planned:
            if planned.times > 0 and planned.pattern.search(request):
                planned.times -= 1
                return planned.fault
        chaos, dice = self._world.chaos, self._world.dice
        for fault in REQUEST_FAULTS:
            probability: float = getattr(chaos, fault)
            if probability > 0 and dice.random() < probability:
                return fault
        return None
