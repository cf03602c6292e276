"""Processor time of families of processes, and the table."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.meters import FamilyClock, cpu_ns
from benchmarks.orders import Outcome
from benchmarks.report import medians, ratio, table
from benchmarks.scenarios import Sample


def test_the_clock_of_a_process_counts_its_work_and_not_its_sleep() -> None:
    before = cpu_ns(os.getpid())
    time.sleep(0.02)
    asleep = cpu_ns(os.getpid()) - before
    while cpu_ns(os.getpid()) - before < asleep + 20_000_000:
        pass

    assert asleep < 15_000_000


def test_a_child_that_ended_in_between_counts_with_its_parent() -> None:
    work = "import time\nwhile time.process_time() < 0.2: pass"
    before = FamilyClock.read(os.getpid())
    subprocess.run([sys.executable, "-c", work], check=True)
    after = FamilyClock.read(os.getpid())

    assert after.since(before) > 150_000_000


def test_a_child_that_was_known_is_not_counted_twice() -> None:
    earlier = FamilyClock({1: 100, 2: 5_000}, reaped_ns=10_000)
    later = FamilyClock({1: 150, 3: 70}, reaped_ns=16_000)

    # 50 of the parent, 70 of the new child, and of the one that ended what came after the first look.
    assert later.since(earlier) == 50 + 70 + 1_000


def _sample(target: str, cost_us: float) -> Sample:
    figures = {f"{target}_us_per_request": cost_us, "requests_per_s": 1e6 / cost_us}
    return Sample("plain", target, figures, Outcome(1, 0, 0, 0, 1, 1))


def test_the_table_shows_medians_and_how_many_times_the_limit() -> None:
    samples = [
        *(_sample("nginx", cost_us) for cost_us in (10.0, 20.0, 900.0)),
        *(_sample("gateway", cost_us) for cost_us in (100.0, 300.0, 200.0)),
    ]

    assert ratio("plain", medians(samples)) == 10.0
    shown = table(samples)
    assert "median of 3 runs" in shown
    assert "gateway : nginx = 10.0" in shown
    assert next(line for line in shown.splitlines() if "processor time a request" in line).split()[-2:] == [
        "20.00",
        "200.0",
    ]


def test_without_nginx_there_is_no_ratio() -> None:
    samples = [_sample("gateway", 100.0)]

    assert ratio("plain", medians(samples)) is None
    assert "gateway : nginx" not in table(samples)
