"""`manage.py commission DEPLOYMENT`: how much does it carry, how fast, and what does a token of it cost?"""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from models_catalog.fleet.commission.sums import Limits
from models_catalog.fleet.commission.sweep import CommissionFailed, Measured, Plan
from models_catalog.fleet.inventory import DeploymentNotFound
from models_catalog.fleet.measured import CurveRow
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from portal.kit.secrets import SecretError
from quotas.commissioning import Commissioned, LiveCalls, commission
from tenants.operations import audit
from tenants.scope import role_scope

MAX_SECONDS = 3600
MAX_CONCURRENCY = 4096
MAX_TOKENS = 100_000


class Command(BaseCommand):
    help = (
        "Measures a deployment with more and more calls at a time, straight at its backend, and stores the "
        "curve that gateways choose by. See docs/fleet.md."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        plan = Plan()
        parser.add_argument("deployment", metavar="DEPLOYMENT", help="Its id: dep_…")
        parser.add_argument("--max-seconds", type=int, default=int(plan.max_seconds))
        parser.add_argument("--max-concurrency", type=int, default=plan.max_concurrency)
        parser.add_argument("--prompt-tokens", type=int, default=plan.prompt_tokens)
        parser.add_argument("--output-tokens", type=int, default=plan.output_tokens)
        parser.add_argument(
            "--ttft-limit-ms",
            type=int,
            default=plan.limits.ttft_p95_ms,
            help="The p95 time to the first token that certified load has to keep.",
        )
        parser.add_argument(
            "--min-speed",
            type=float,
            default=plan.limits.call_tokens_per_s,
            help="The tokens a second that each call has to get at certified load.",
        )
        parser.add_argument("--note", default="", help="What was changed since the last time, for instance.")
        parser.add_argument("--compare", action="store_true", help="Show the difference to the last curve.")
        parser.add_argument("--force", action="store_true", help="Also while the backend serves calls.")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.SECRET_STORE is None:
            raise CommandError("SECRETS_DIR must be set: credentials of backends are stored encrypted.")
        deployment_id = _deployment_id(options["deployment"])
        try:
            with role_scope("operator"):
                done = commission(
                    deployment_id=deployment_id,
                    plan=_plan(options),
                    secrets=settings.SECRET_STORE,
                    actor=audit.SYSTEM,
                    reason=options["note"] or "manage.py commission",
                    now=utc_now(),
                    say=self._say,
                    note=options["note"],
                    force=options["force"],
                )
        except DeploymentNotFound as error:
            raise CommandError("There is no such deployment.") from error
        except LiveCalls as error:
            raise CommandError(
                f"The backend serves {error.count} calls now, which this would slow down. Drain it first, "
                "or use --force."
            ) from error
        except SecretError as error:
            raise CommandError("The backend's credential cannot be read.") from error
        except CommissionFailed as error:
            raise CommandError(f"Not measured: {error}.") from error
        self._tell(done, compares=options["compare"])

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _tell(self, done: Commissioned, *, compares: bool) -> None:
        measured = done.measured
        self._say(f"Ended after {measured.took_s:,.0f} s: {measured.ended}.")
        if measured.certified_concurrency:
            self._say(
                f"Certified: {measured.certified_concurrency} calls at a time, "
                f"{measured.certified_tokens_per_s:,} weighted tokens/s."
            )
        else:
            self._say("Certified: nothing; not even one call at a time kept the limits.")
        cached = "unknown" if measured.cached_weight is None else f"{measured.cached_weight / 1000:.3f}"
        self._say(f"Cost of tokens: input {measured.input_weight / 1000:.3f}, cached {cached}, output 1.")
        self._say(
            f"It used {measured.spent_prompt_tokens:,} input and {measured.spent_output_tokens:,} output "
            "tokens, which nobody is charged for; the backend's counters include them."
        )
        self._say(f"Stored as {public_id(PREFIXES['curve'], done.curve_id)}.")
        if compares:
            for line in difference(done.before, measured, done.engine_version):
                self._say(line)


def difference(before: CurveRow | None, after: Measured, version: str) -> list[str]:
    """What changed since the last curve, a line each."""
    if before is None:
        return ["There is no earlier curve to compare with."]
    old = before.curve
    lines = [f"Compared with {before.public_id} of {old.measured_at:%Y-%m-%d %H:%M} UTC:"]
    if before.engine_version != version:
        lines.append(f"  engine version      {before.engine_version or '–'} → {version or '–'}")
    peak = max(point.output_tokens_per_s for point in after.points)
    pairs = [
        ("most tokens/s", old.peak_tokens_per_s, peak),
        ("certified calls", old.certified_concurrency, after.certified_concurrency),
        ("certified tokens/s", old.certified_tokens_per_s, after.certified_tokens_per_s),
        ("input weight", old.input_weight / 1000, after.input_weight / 1000),
    ]
    at_both = {point.concurrency: point for point in old.points}
    for point in after.points:
        if point.concurrency in at_both:
            was = at_both[point.concurrency]
            calls = f"{point.concurrency} at a time"
            pairs.append((f"{calls}: tokens/s", was.output_tokens_per_s, point.output_tokens_per_s))
            pairs.append((f"{calls}: p95 ms", was.ttft_p95_ms, point.ttft_p95_ms))
    return [*lines, *(f"  {_change(*pair)}" for pair in pairs)]


def _change(name: str, before: float, after: float) -> str:
    share = f"  {(after / before - 1) * 100:+.1f} %" if before else ""
    return f"{name:<24}{before:>12,.5g} → {after:>12,.5g}{share}"


def _deployment_id(text: str) -> UUID:
    try:
        return parse_public_id(PREFIXES["deployment"], text)
    except InvalidPublicId:
        raise CommandError(
            "Name the deployment by its id, dep_…, as its page under Fleet shows it."
        ) from None


def _plan(options: dict[str, Any]) -> Plan:
    for name, highest in (
        ("max_seconds", MAX_SECONDS),
        ("max_concurrency", MAX_CONCURRENCY),
        ("prompt_tokens", MAX_TOKENS),
        ("output_tokens", MAX_TOKENS),
    ):
        if not 1 <= options[name] <= highest:
            raise CommandError(f"--{name.replace('_', '-')} must be from 1 to {highest}.")
    return Plan(
        prompt_tokens=options["prompt_tokens"],
        output_tokens=options["output_tokens"],
        max_concurrency=options["max_concurrency"],
        max_seconds=float(options["max_seconds"]),
        limits=Limits(options["ttft_limit_ms"], options["min_speed"]),
    )
