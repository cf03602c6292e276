"""Simulated engines that the SDKs reach through the gateway, and what was billed beside their own books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devstack.engines.testing import RunningEngine
from tests.database import rows_of
from tests.factories import ModelFixture, TenantFixture
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for

SETTLE_TIMEOUT_S = 10.0
# Of each price a rounding is left in every line.
PRICES = {
    "input": 333_333_333,
    "cached_input": 33_333_337,
    "output": 1_234_567_891,
    "reasoning": 2_345_678_917,
}


@dataclass(slots=True)
class Scene:
    """An organization with one model on one simulator, which has served nobody else since `settled` began."""

    gateway: RunningGateway
    engine: RunningEngine
    tenant: TenantFixture
    model: ModelFixture

    @property
    def token(self) -> str:
        return self.tenant.key.token

    def settled(self, calls: int) -> list[dict[str, Any]]:
        """The usage of that many calls, oldest first, once all are settled. It is what the simulator has in
        its own books, to the token."""

        def all_of_them() -> list[dict[str, Any]]:
            rows = rows_of("quotas_usagerecord", tenant_id=self.tenant.id)
            return rows if len(rows) == calls else []

        rows = wait_for(all_of_them, SETTLE_TIMEOUT_S, f"the settlement of {calls} calls")
        self.engine.wait_idle()
        books = self.engine.totals()
        billed = {
            name: sum(row[f"{name}_tokens"] for row in rows) for name in ("prompt", "cached", "completion")
        }
        assert billed == {
            "prompt": books["prompt_tokens"],
            "cached": books["cached_tokens"],
            "completion": books["generated_tokens"],
        }
        for row in rows:
            assert (row["basis"], row["provenance"], row["overrun_nanos"]) == ("FINAL_USAGE", "MEASURED", 0)
            assert row["charged_nanos"] == cost_nanos(row)
        return sorted(rows, key=lambda row: row["request_id"])


def cost_nanos(row: dict[str, Any]) -> int:
    """Tokens times price, each line rounded half up, once."""
    units = {
        "input": row["prompt_tokens"] - row["cached_tokens"],
        "cached_input": row["cached_tokens"],
        "output": row["completion_tokens"] - row["reasoning_tokens"],
        "reasoning": row["reasoning_tokens"],
    }
    return sum((units[name] * PRICES[name] + 500_000) // 1_000_000 for name in units)
