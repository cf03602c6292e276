"""A measured curve as its page shows it: two charts, and what was certified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from models_catalog.fleet.measured import CurveRow, newest_curves
from portal.pages.charts import Chart, Series, Slot, paired_bars


@dataclass(frozen=True, slots=True)
class ShownCurve:
    """A curve with its charts. Speeds in tokens a second."""

    row: CurveRow
    tokens_chart: Chart
    ttft_chart: Chart

    @property
    def peak(self) -> int:
        return round(self.row.curve.peak_tokens_per_s)

    @property
    def took_s(self) -> int:
        return round(self.row.took_ms / 1000)


def show_curve(row: CurveRow) -> ShownCurve:
    """The charts of a curve: what it carries, and how long the first token takes, by calls at a time."""
    points = row.curve.points
    slots = [
        Slot(str(point.concurrency), _("%(calls)s at a time") % {"calls": point.concurrency})
        for point in points
    ]
    heading = _("Calls at a time")
    return ShownCurve(
        row,
        paired_bars(
            chart_id="curve-tokens",
            title=_("Output tokens/s by calls at a time"),
            slots=slots,
            pairs=[[Series(_("tokens/s"), tuple(round(point.output_tokens_per_s) for point in points))]],
            wording=lambda value: f"{value:,}",
            slot_heading=heading,
            adds_up=False,
        ),
        paired_bars(
            chart_id="curve-ttft",
            title=_("Time to the first token by calls at a time"),
            slots=slots,
            pairs=[
                [Series(_("median"), tuple(point.ttft_p50_ms for point in points))],
                [Series(_("p95"), tuple(point.ttft_p95_ms for point in points))],
            ],
            wording=lambda value: f"{value:,} ms",
            slot_heading=heading,
            adds_up=False,
        ),
    )


def measured_capacity(deployment_id: UUID) -> dict[str, Any]:
    """What the newest curve says of a capacity, by the names of the form's fields; usual weights as long as
    nothing was measured."""
    found = newest_curves(deployment_ids=[deployment_id]).get(deployment_id)
    if found is None:
        return {"input_weight": 250, "cached_weight": 25, "output_weight": 1000}
    curve = found.curve
    return {
        "input_weight": curve.input_weight,
        "cached_weight": curve.input_weight if curve.cached_weight is None else curve.cached_weight,
        "output_weight": 1000,
        "capacity_tokens_per_s": curve.certified_tokens_per_s or None,
    }
