"""`make bench`: what a call and a chunk cost, and whether the books agree to the token afterwards.

It reports, and asserts nothing about time. It exits 1 when a call failed, a stream was cut, or the tokens
that the backend served, the clients got and the ledger billed are not the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import report
from benchmarks.books import REPOSITORY, compare
from benchmarks.scenarios import FULL, QUICK, SCENARIOS, SMALLEST, Bench, Sample, Size
from benchmarks.stage import Stage, running_stage, settings_that_count, start_gateway, start_nginx
from devstack import ports
from portal.settings.environment import select_settings

ENGINES = ("vllm", "sglang", "generic")
OUTPUT = Path("artifacts") / "bench.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be given several times"
    )
    parser.add_argument("--runs", type=int, help="interleaved runs of plain and stream (5, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--smallest", action="store_true", help="only to see that it works")
    parser.add_argument(
        "--engine", choices=ENGINES, default="vllm", help="as which the backend is registered"
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / OUTPUT, help=f"({OUTPUT})")
    parser.add_argument("--folder", type=Path, help="for the servers' data, empty or new (one in /tmp)")
    parser.add_argument("--keep", action="store_true", help="measure nothing; keep all running until Ctrl-C")
    options = parser.parse_args(argv)
    if options.runs is None:
        options.runs = 1 if options.quick or options.smallest else 5
    # An orderly end also of what runs in the background, where the shell ignores Ctrl-C for its children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True) as temporary:
        folder = options.folder or Path(temporary)
        with running_stage(folder) as stage:
            return _run(stage, options)


def _run(stage: Stage, options: argparse.Namespace) -> int:
    size = SMALLEST if options.smallest else QUICK if options.quick else FULL
    bench = _prepare(stage, size, options.engine)
    if options.keep:
        return _keep(stage, bench)
    samples: list[Sample] = []
    bench.warm_up()
    for scenario in options.scenario or SCENARIOS:
        for sample in bench.run(scenario, options.runs):
            samples.append(sample)
            print(_progress(sample), flush=True)
    verdict = compare(
        sent=bench.sent,
        served=stage.served()["gateway"],
        database_url=stage.services.postgres.superuser_url,
    )
    print(report.table(samples))
    print("\n".join(report.verdict_lines(verdict)))
    settings = {"engine": options.engine, "revision": _revision(), **settings_that_count(os.environ)}
    report.write_json(options.output, samples=samples, verdict=verdict, size=size, settings=settings)
    print(f"\nAll figures of all runs: {options.output}")
    return 0 if verdict.is_exact else 1


def _prepare(stage: Stage, size: Size, engine: str) -> Bench:
    """Organizations in a migrated database, the gateway that serves them, and nginx where there is one."""
    from portal.kit.secrets import SecretStore

    SecretStore.create_missing(stage.services.secrets_dir)
    select_settings(database_role="auth")
    import django

    django.setup(set_prefix=False)
    from benchmarks import customers

    print("Migrating, and opening organizations ...", flush=True)
    customers.migrate()
    keys = customers.open_customers(
        size.customers,
        engine=engine,
        backend_url=f"http://{ports.HOST}:{stage.backend_port}",
        folder=stage.folder,
    )
    start_gateway(stage)
    names = ["direct", "gateway"]
    if start_nginx(stage):
        names.append("nginx")
    else:
        print("nginx is not installed: there will be no limit to compare with.", flush=True)
    targets = {
        name: stage.target(
            name,
            model=customers.MODEL,
            upstream_model=customers.UPSTREAM_MODEL,
            has_running_usage=engine != "generic",
        )
        for name in names
    }
    return Bench(stage, size, keys, targets)


def _keep(stage: Stage, bench: Bench) -> int:
    """For a profiler, or a load of somebody's own."""
    assert stage.gateway is not None
    target = bench.targets["gateway"]
    print(f"gateway  process {stage.gateway.pid}, http://{target.host}:{target.port}{target.path}")
    print(f"backend  process {stage.backend.pid}, http://{target.host}:{stage.backend_port}")
    print(f"database {stage.services.postgres.superuser_url}")
    keys_file = stage.folder / "keys.json"
    keys_file.write_text(json.dumps(list(bench.keys)))
    print(f"model    {target.model}, keys in {keys_file}", flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()
    return 0


def _progress(sample: Sample) -> str:
    figures, outcome = sample.figures, sample.outcome
    unit = "chunk" if f"{sample.target}_us_per_chunk" in figures else "request"
    cost = figures.get(f"{sample.target}_us_per_{unit}")
    told = f"{cost:.1f} us of {sample.target} per {unit}" if cost is not None else ""
    trouble = f"  {outcome.failed} failed, {outcome.cut} cut: {outcome.errors}" if outcome.errors else ""
    return f"  {sample.scenario:8} {sample.target:8} {outcome.duration_ns / 1e9:6.1f} s  {told}{trouble}"


def _revision() -> str:
    """Of the source, where it is a checkout."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - wherever it is
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
