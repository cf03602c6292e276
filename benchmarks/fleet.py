"""python -m benchmarks.fleet: does a mixed fleet carry what it can, and how soon does a client hear of it?

Three simulated engines with eight slots each, whose calls run at 100, 40 and 10 tokens a second, serve
one model through a real gateway; each is commissioned first. Calls come at random moments at 80 % of what
all three can carry together; then at 80 % of the fast one for a model that only the fast one serves. It
reports the share of the traffic that each got beside its share of the capacity, and the times to the first
token. It exits 1 when a call failed, and asserts nothing about time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.books import REPOSITORY
from benchmarks.stage import Stage, running_stage, start_gateway
from devstack import ports
from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.settings.environment import select_settings

SPEEDS: Final = {"fast": 100.0, "middle": 40.0, "slow": 10.0}
SLOTS: Final = 8
PREFILL_PER_TOKEN_SPEED: Final = 50.0
PROMPT_WORDS: Final = 100
MEAN_TOKENS: Final = 120
MAX_TOKENS: Final = 600
LOAD: Final = 0.8
ALL: Final = "fleet/all"
FAST: Final = "fleet/fast"
OUTPUT: Final = REPOSITORY / "artifacts" / "fleet.json"

_CATALOG: Final = """\
pools:
{pools}
backends:
{backends}
models:
{models}
"""
_MODEL: Final = """\
  - slug: {slug}
    display_name: {slug}
    context_tokens: 8192
    max_output_tokens: 2048
    default_output_cap_tokens: 512
    deployments: [{deployments}]
    prices:
      - currency: USD
        lines:
          - {{class: input, price_per_million: "0.50"}}
          - {{class: output, price_per_million: "1.50"}}
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one load: how many calls and tokens each engine served, and the times to the first token
    in seconds, in order."""

    calls: dict[str, int]
    tokens: dict[str, int]
    ttfts_s: list[float]
    failures: Counter[str]

    def ttft_ms(self, share: float) -> float:
        place = min(len(self.ttfts_s) - 1, int(len(self.ttfts_s) * share))
        return round(self.ttfts_s[place] * 1000, 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="of each load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unmeasured", action="store_true", help="commission nothing: the gateway learns")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="sluice-fleet-", ignore_cleanup_errors=True) as temporary,
        running_stage(Path(temporary)) as stage,
        ExitStack() as running,
    ):
        engines = {
            name: running.enter_context(
                start_engine(
                    "vllm",
                    model="sim-model",
                    tokens_per_s=speed,
                    prefill_tokens_per_s=speed * PREFILL_PER_TOKEN_SPEED,
                    slots=SLOTS,
                )
            )
            for name, speed in SPEEDS.items()
        }
        key = _prepare(stage, engines, measures=not options.unmeasured)
        start_gateway(stage)
        url = f"http://{ports.HOST}:{stage.gateway_port}/v1/chat/completions"
        together = asyncio.run(_load(url, key, ALL, engines, tuple(SPEEDS), options))
        alone = asyncio.run(_load(url, key, FAST, engines, ("fast",), options))
    return _report(together, alone, options)


def service_s(speed: float) -> float:
    """Of an ordinary call."""
    return PROMPT_WORDS / (speed * PREFILL_PER_TOKEN_SPEED) + MEAN_TOKENS / speed


def capacity(name: str) -> float:
    """Calls a second."""
    return SLOTS / service_s(SPEEDS[name])


def _prepare(stage: Stage, engines: dict[str, RunningEngine], *, measures: bool) -> str:
    """Migrates, describes the fleet, commissions it, and opens an organization; its key."""
    from portal.kit.secrets import SecretStore

    SecretStore.create_missing(stage.services.secrets_dir)
    select_settings(database_role="auth")
    import django

    django.setup(set_prefix=False)
    from django.conf import settings
    from django.core.management import call_command

    from benchmarks.customers import CREDIT_NANOS, migrate
    from models_catalog.catalog_file import CatalogDocument, apply_catalog
    from models_catalog.models import Deployment
    from models_catalog.operations import enable_model, issue_api_key
    from portal.kit.clock import utc_now
    from portal.kit.ids import PREFIXES, public_id
    from quotas.operations import WelcomeCredit, open_tenant
    from tenants.models import User
    from tenants.scope import role_scope

    print("Migrating, and describing the fleet ...", flush=True)
    migrate()
    with role_scope("auth"):
        User.objects.create_user("operator@bench.example", secrets.token_urlsafe(), is_staff=True)
    store = settings.SECRET_STORE
    assert store is not None
    with role_scope("operator"):
        apply_catalog(document=CatalogDocument(_catalog(engines)), secrets=store)
        deployments = [
            (row.id, row.backend.code)
            for row in Deployment.objects.filter(model__slug=ALL).select_related("backend")
        ]
        tenant_id = open_tenant(
            name="Fleet",
            currency="USD",
            currencies=settings.CURRENCIES,
            owner_id=None,
            welcome_credit=WelcomeCredit(CREDIT_NANOS, "for the benchmark"),
        )
        for slug in (ALL, FAST):
            enable_model(tenant_id=tenant_id, slug=slug)
        key = issue_api_key(
            tenant_id=tenant_id,
            name="fleet",
            secrets=store,
            now=utc_now(),
            labels={},
            expires_at=None,
            slugs=None,
            created_by_id=None,
        ).token
    for deployment_id, code in deployments if measures else ():
        print(f"Commissioning {code} ...", flush=True)
        call_command(
            "commission",
            public_id(PREFIXES["deployment"], deployment_id),
            f"--prompt-tokens={PROMPT_WORDS}",
            "--output-tokens=16",
            f"--max-concurrency={2 * SLOTS}",
            "--max-seconds=90",
            # What the slow pool's own prompts take is no reason to use less of it here.
            "--ttft-limit-ms=30000",
        )
    return key


def _catalog(engines: dict[str, RunningEngine]) -> str:
    pools = "\n".join(
        f"  - {{code: {name}, name: {name}, accelerator_kind: simulated, region: local}}" for name in engines
    )
    backends = "\n".join(
        f"  - {{code: {name}, pool: {name}, engine: vllm, "
        f'base_url: "{engine.url}", max_concurrency: {SLOTS}}}'
        for name, engine in engines.items()
    )
    on = {ALL: list(engines), FAST: ["fast"]}
    models = "".join(
        _MODEL.format(
            slug=slug,
            deployments=", ".join(f"{{backend: {name}, upstream_model: sim-model}}" for name in names),
        )
        for slug, names in on.items()
    )
    return _CATALOG.format(pools=pools, backends=backends, models=models)


async def _load(
    url: str,
    key: str,
    model: str,
    engines: dict[str, RunningEngine],
    names: Sequence[str],
    options: argparse.Namespace,
) -> Run:
    """Calls at random moments, at LOAD of what these engines can carry, until the time is over."""
    chance = random.Random(options.seed)
    rate_per_s = LOAD * sum(capacity(name) for name in names)
    print(f"{model}: {rate_per_s:.1f} calls/s for {options.seconds} s ...", flush=True)
    before = {name: engines[name].totals() for name in names}
    ttfts_s: list[float] = []
    failures: Counter[str] = Counter()
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=headers, trust_env=False
        ) as session,
        asyncio.TaskGroup() as calls,
    ):
        begun_s = due_s = time.monotonic()
        while due_s - begun_s < options.seconds:
            due_s += chance.expovariate(rate_per_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            tokens = min(MAX_TOKENS, max(1, round(chance.expovariate(1 / MEAN_TOKENS))))
            calls.create_task(_call(session, url, _body(model, tokens, chance), ttfts_s, failures))
    after = {name: engines[name].totals() for name in names}
    return Run(
        calls={name: after[name]["requests"] - before[name]["requests"] for name in names},
        tokens={name: after[name]["generated_tokens"] - before[name]["generated_tokens"] for name in names},
        ttfts_s=sorted(ttfts_s),
        failures=failures,
    )


def _body(model: str, tokens: int, chance: random.Random) -> dict[str, Any]:
    """No two prompts begin alike: nobody's cache decides."""
    words = " ".join(str(chance.randrange(10**6)) for _ in range(PROMPT_WORDS - 10))
    content = f"{words} {sim(tokens=tokens)}"
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": MAX_TOKENS,
        "stream": True,
    }


async def _call(
    session: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    ttfts_s: list[float],
    failures: Counter[str],
) -> None:
    begun_s = time.monotonic()
    first_s = 0.0
    is_done = False
    try:
        async with session.post(url, json=body) as answer:
            if answer.status != 200:
                failures[f"HTTP {answer.status}"] += 1
                return
            async for line in answer.content:
                if not first_s and b'"content":"w' in line.replace(b": ", b":"):
                    first_s = time.monotonic()
                is_done = is_done or line.startswith(b"data: [DONE]")
    except (aiohttp.ClientError, OSError) as error:
        failures[type(error).__name__] += 1
        return
    if is_done and first_s:
        ttfts_s.append(first_s - begun_s)
    else:
        failures["cut"] += 1


def _report(together: Run, alone: Run, options: argparse.Namespace) -> int:
    calls, whole = sum(together.calls.values()), sum(capacity(name) for name in SPEEDS)
    tokens = sum(together.tokens.values())
    print(f"\n{'pool':<10}{'calls':>8}{'of calls':>10}{'of tokens':>11}{'of capacity':>13}{'ratio':>8}")
    ratios: dict[str, float] = {}
    for name in SPEEDS:
        share, wanted = together.tokens[name] / tokens, capacity(name) / whole
        ratios[name] = round(share / wanted, 3)
        print(
            f"{name:<10}{together.calls[name]:>8}{together.calls[name] / calls:>10.1%}{share:>11.1%}"
            f"{wanted:>13.1%}{ratios[name]:>8.2f}"
        )
    figures = {
        title: {f"p{share * 100:.0f}": run.ttft_ms(share) for share in (0.5, 0.95, 0.99)}
        for title, run in (("all three", together), ("fast alone", alone))
    }
    print(f"\n{'first token, ms':<18}{'calls':>8}{'p50':>10}{'p95':>10}{'p99':>10}")
    for (title, spread), run in zip(figures.items(), (together, alone), strict=True):
        print(f"{title:<18}{len(run.ttfts_s):>8}" + "".join(f"{value:>10,.1f}" for value in spread.values()))
    failures = together.failures + alone.failures
    print(f"\nfailed: {dict(failures) or 'none'}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {
                "seconds": options.seconds,
                "load": LOAD,
                "commissioned": not options.unmeasured,
                "calls": together.calls,
                "tokens": together.tokens,
                "ratio_to_capacity": ratios,
                "ttft_ms": figures,
                "failures": dict(failures),
                "settings": {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")},
            },
            indent=2,
        )
    )
    print(f"All figures: {options.output}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
