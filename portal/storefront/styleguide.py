"""Every token and component on one page, in every frame; development instances only, and not translated."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django import forms
from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from portal.kit.money import format_nanos
from portal.pages import charts
from portal.pages.access import Organization
from quotas.ledger.queries import WalletBalance
from tenants.models import Role

FRAMES: Final = ("console", "public", "account", "operator")
SAMPLE_DAY: Final = datetime(2026, 3, 2, tzinfo=UTC)
COLOURS: Final = (
    ("paper", "ink", "muted", "rule", "tick", "edge", "sunken", "raised"),
    ("accent", "accent-wash", "amber", "amber-wash", "red", "red-wash"),
)
SPRITE: Final = Path(settings.BASE_DIR) / "static" / "icons.svg"


class SampleForm(forms.Form):
    name = forms.CharField(max_length=80, help_text="Only your organization sees it.")
    expires_on = forms.DateField(
        required=False, error_messages={"invalid": "Enter a day such as 2026-03-31."}
    )
    model = forms.ChoiceField(choices=[("all", "All enabled models"), ("some", "Some models")])
    note = forms.CharField(required=False, widget=forms.Textarea)
    confirm = forms.BooleanField(required=False, label="Stop at the budget", help_text="Calls are refused.")


def styleguide(request: HttpRequest) -> HttpResponse:
    """GET ?frame=console|public|account|operator. Errors: 404 outside development."""
    if not settings.MAILBOX:
        raise Http404
    frame = request.GET.get("frame", "console")
    context = sample_context(frame if frame in FRAMES else "console")
    return render(request, "styleguide/page.html", context)


def sample_context(frame: str) -> dict[str, Any]:
    """Made-up data; nothing is read from the database."""
    currency = "CNY"
    organization = Organization(UUID(int=7), "Northern Compute", currency, "active", Role.OWNER, UUID(int=9))
    form = SampleForm({"name": "", "expires_on": "31.3.", "model": "all", "note": "", "confirm": "on"})
    form.is_valid()
    return {
        "frame": frame,
        "frames": FRAMES,
        "layout": f"layouts/{frame}.html",
        "section": "overview",
        "organization": organization,
        "wallet": WalletBalance(currency, 1_284_310_042_000, 20_000_000_000, 0, 3_100_000_000, 0),
        "currency": currency,
        "colours": COLOURS,
        "series": [*(str(place) for place in range(1, charts.MAX_SERIES + 1)), "other"],
        "icons": re.findall(r'<symbol id="([^"]+)"', SPRITE.read_text(encoding="utf-8")),
        "form": form,
        "page": Paginator(range(230), 50).page(2),
        "rows": sample_rows(),
        "total_nanos": sum(row["cost_nanos"] for row in sample_rows()),
        "bars": sample_chart("bars", models=9),
        "area": sample_chart("area", models=1),
        "empty_chart": charts.stacked_bars(
            chart_id="none", title="Cost", slots=[], series=[], wording=money_words
        ),
        "line": charts.sparkline([4, 6, 5, 9, 12, 8, 9, 14, 11, 13], title="Median 310 ms, 10 days"),
        "now": SAMPLE_DAY,
        "amounts": (0, 123_000, -4_200_000_000, 98_765_432_100_000_000),
    }


def sample_rows() -> list[dict[str, Any]]:
    return [
        {"model": "qwen/qwen3-32b", "tokens": 1_204_881, "cost_nanos": 2_409_762_000, "state": "ok"},
        {"model": "deepseek/deepseek-v3", "tokens": 98_120, "cost_nanos": 784_960_000, "state": "warn"},
        {"model": "zhipu/glm-4.6-flash-long-name", "tokens": 31, "cost_nanos": 123_000, "state": "bad"},
        {"model": "baai/bge-m3", "tokens": 0, "cost_nanos": 0, "state": "quiet"},
    ]


def money_words(amount_nanos: int) -> str:
    return format_nanos(amount_nanos, "CNY")


def sample_chart(chart_id: str, *, models: int) -> charts.Chart:
    """A day by hours with a quiet night; the numbers are made by arithmetic, so pictures can be compared."""
    hours = [SAMPLE_DAY + timedelta(hours=hour) for hour in range(24)]
    slots = [charts.Slot(f"{hour:%H}", f"{hour:%Y-%m-%d %H:%M} UTC") for hour in hours]
    series = [
        charts.Series(
            f"vendor/model-{place + 1}",
            tuple(
                (900 - 90 * place) * 1_000_000 * (2 + (hour * (3 + place)) % 7) * (1 if 6 < hour < 22 else 0)
                for hour in range(24)
            ),
        )
        for place in range(models)
    ]
    draw = charts.filled_area if models == 1 else charts.stacked_bars
    return draw(
        chart_id=chart_id, title="Cost an hour", slots=slots, series=series, wording=money_words,
        slot_heading="Hour",
    )  # fmt: skip
