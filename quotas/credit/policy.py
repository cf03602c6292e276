"""How much one operator gives alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from portal.kit.money import NANOS_PER_UNIT

PERIOD: Final = timedelta(hours=24)
# Between all organizations together an operator gives alone so many times what one organization may get.
ORGANIZATIONS_FACTOR: Final = 10


@dataclass(frozen=True, slots=True)
class CreditPolicy:
    """limit_nanos: of free credit and goodwill, by one operator alone to one organization within PERIOD;
    line_limit_nanos: up to which one operator sets a credit line alone. Nano-units of whatever currency."""

    limit_nanos: int
    line_limit_nanos: int

    @classmethod
    def of_units(cls, *, limit_units: int, line_limit_units: int) -> CreditPolicy:
        """From whole units of currency, as the installation configures them."""
        return cls(limit_units * NANOS_PER_UNIT, line_limit_units * NANOS_PER_UNIT)

    @property
    def all_organizations_nanos(self) -> int:
        """What an operator gives alone to all organizations together within PERIOD. Currencies are added up
        as if they were one, so that several of them are no way around it."""
        return ORGANIZATIONS_FACTOR * self.limit_nanos
