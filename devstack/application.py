"""Our own processes: what `make run` runs once the services answer, and what tells them about each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devstack import ports
from devstack.datadir import DataDir

# Set by `make` for its own children; they would confuse a `make` that one of our processes starts.
_NOT_PASSED_ON = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")

# What names servers of the operator's own; `make manage` needs it, too.
_SERVERS_OF_THE_OPERATOR = (
    "DATABASE_URL",
    "VALKEY_URL",
    "CATALOG_FILE",
    "STRIPE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRETS",
    "STRIPE_API_BASE",
    "STRIPE_ACCOUNT",
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command that has to succeed before the processes start."""

    name: str
    argv: Sequence[str]
    done: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs for good. `ready_url` answers 200 once it serves; None: it is ready at once."""

    name: str
    argv: Sequence[str]
    ready_url: str | None = None


@dataclass(frozen=True, slots=True)
class Application:
    """Everything of ours, in the order in which it starts."""

    steps: Sequence[Step]
    processes: Sequence[Process]


def portal_application(port: int, data_dir: DataDir) -> Application:
    """The portal: web on `port`, gateway on the next one, worker and beat."""
    manage = (sys.executable, "manage.py")
    run_module = (sys.executable, "-m")
    celery = (*run_module, "celery", "-A", "portal.celery")
    uvicorn = (*run_module, "uvicorn", "portal.asgi:application", "--lifespan", "on", "--no-access-log")
    # What was sent to a socket has left; a client that answers no ping is gone; a stop takes seconds.
    sockets = (
        *("--ws", "portal.playground.protocol:PromptWebSocket", "--ws-max-size", str(2 * 2**20)),
        *("--ws-ping-interval", "15", "--ws-ping-timeout", "15", "--ws-per-message-deflate", "false"),
        *("--timeout-graceful-shutdown", "10", "--log-level", "warning"),
    )
    worker_options = ("--pool", "threads", "--loglevel", "WARNING", "--without-gossip", "--without-mingle")
    gateway_port = port + 1
    return Application(
        steps=(
            Step("migrate", (*manage, "migrate", "--no-input"), "Migrations applied", 600.0),
            Step("check", (*manage, "check", "--database", "default"), "Checks passed", 120.0),
            Step("seed", (*manage, "seed"), "Demo data in place", 300.0),
        ),
        processes=(
            Process(
                "gateway",
                (*run_module, "portal.gateway", "--host", ports.HOST, "--port", str(gateway_port)),
                ready_url=f"http://{ports.HOST}:{gateway_port}/readyz",
            ),
            Process(
                "web",
                (*uvicorn, *sockets, "--host", ports.HOST, "--port", str(port)),
                ready_url=f"http://{ports.HOST}:{port}/readyz",
            ),
            # Threads, not a pool of processes: nothing can outlive the worker. Money has a worker of its own,
            # so that a mail server which does not answer keeps no hold from being resolved; so have calls to
            # Stripe, and usage feeds, which may come by the million.
            *(
                Process(
                    name,
                    (
                        *celery,
                        "worker",
                        "-n",
                        f"{name}@%h",
                        "-Q",
                        queue,
                        "--concurrency",
                        threads,
                        *worker_options,
                    ),
                )
                for name, queue, threads in (
                    ("worker", "default", "4"),
                    ("ledger", "ledger", "2"),
                    ("payments", "payments", "3"),
                    ("reconciliation", "reconciliation", "2"),
                )
            ),
            Process("beat", (*celery, "beat", "-s", str(data_dir.run / "beat-schedule"), "--pidfile=")),
        ),
    )


def instance_environment(port: int, data_dir: DataDir, services: Mapping[str, str]) -> dict[str, str]:
    """The variables that make up this instance; those that the caller's environment names win."""
    own = {
        "SLUICE_ENV": "development",
        "SECRETS_DIR": str(data_dir.secrets),
        # A demonstration shows what a dearer price does at once.
        "SLUICE_PRICE_NOTICE_DAYS": "0",
        **services,
    }
    chosen = {key: os.environ.get(key) or value for key, value in own.items()}
    for key in _SERVERS_OF_THE_OPERATOR:
        if os.environ.get(key):
            chosen[key] = os.environ[key]
    return {
        **chosen,
        "PORTAL_URL": f"http://{ports.HOST}:{port}",
        "API_BASE": f"http://{ports.HOST}:{port + 1}/v1",
        "GATEWAY_PORT": str(port + 1),
        "DEMO_ENV_FILE": str(data_dir.demo_env),
    }


def child_environment(instance: Mapping[str, str]) -> dict[str, str]:
    """The complete environment of one of our processes."""
    inherited = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    return {**inherited, **instance, "PYTHONUNBUFFERED": "1"}
