"""What a replay found: sums by organization, and what follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sums:
    """Calls of one organization. Amounts in nano-units of the currency.

    charged_nanos: what they were charged then, paid and granted credit alike. today_nanos: at the price in
    force when the replay was asked for. draft_nanos: with the draft. refused: calls that the draft has no
    price for, and that count nothing in it. changed: calls that cost otherwise with the draft than today.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    charged_nanos: int = 0
    today_nanos: int = 0
    draft_nanos: int = 0
    refused: int = 0
    changed: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    def values(self) -> list[int]:
        return [getattr(self, each.name) for each in fields(self)]

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def difference_nanos(self) -> int:
        """What the draft changes against today's price; more than zero is dearer."""
        return self.draft_nanos - self.today_nanos

    @property
    def change_ppm(self) -> int | None:
        """The difference as millionths of what it is today, rounded towards zero; None of nothing."""
        return _share_ppm(self.difference_nanos, self.today_nanos)


@dataclass(frozen=True, slots=True)
class Margin:
    """What the model earns and costs in the period, with everybody who uses it in this currency.

    Revenue is what calls are charged, paid and granted credit alike; those that the draft does not reach
    count with what they were charged.
    """

    cost_nanos: int
    before_nanos: int
    after_nanos: int

    @property
    def before_margin_nanos(self) -> int:
        return self.before_nanos - self.cost_nanos

    @property
    def after_margin_nanos(self) -> int:
        return self.after_nanos - self.cost_nanos

    @property
    def before_ppm(self) -> int | None:
        return _share_ppm(self.before_margin_nanos, self.before_nanos)

    @property
    def after_ppm(self) -> int | None:
        return _share_ppm(self.after_margin_nanos, self.after_nanos)


@dataclass(frozen=True, slots=True)
class Found:
    """All that a replay keeps. all_charged_nanos: of every call of the model in the currency, also of those
    that the draft does not reach. cost_nanos: of the model in the period; None when nobody knows."""

    tenants: Mapping[UUID, Sums]
    all_charged_nanos: int = 0
    cost_nanos: int | None = None

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Found:
        return cls(
            {UUID(tenant): Sums(*values) for tenant, values in stored.get("tenants", {}).items()},
            stored.get("all_charged_nanos", 0),
            stored.get("cost_nanos"),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "tenants": {str(tenant): sums.values() for tenant, sums in self.tenants.items()},
            "all_charged_nanos": self.all_charged_nanos,
            "cost_nanos": self.cost_nanos,
        }

    def with_day(self, day: Iterable[tuple[UUID, Sums]], all_charged_nanos: int) -> Found:
        tenants = dict(self.tenants)
        for tenant_id, sums in day:
            tenants[tenant_id] = tenants.get(tenant_id, Sums()) + sums
        return Found(tenants, self.all_charged_nanos + all_charged_nanos, self.cost_nanos)

    @property
    def total(self) -> Sums:
        total = Sums()
        for sums in self.tenants.values():
            total += sums
        return total

    @property
    def margin(self) -> Margin | None:
        if self.cost_nanos is None:
            return None
        total = self.total
        others = self.all_charged_nanos - total.charged_nanos
        return Margin(self.cost_nanos, others + total.today_nanos, others + total.draft_nanos)


def _share_ppm(part: int, whole: int) -> int | None:
    if whole == 0:
        return None
    share = abs(part) * PPM // abs(whole)
    return share if (part < 0) == (whole < 0) else -share
