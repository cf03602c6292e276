"""`make manage`: one management command against an instance, whether it runs or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg

from devstack.application import child_environment
from devstack.datadir import DataDir, InstanceBusyError
from devstack.embedded import EmbeddedServices
from devstack.packages import REPOSITORY
from devstack.process import death_signal_armer, end_leftovers

_WAIT_FOR_INSTANCE_S = 60.0
_LEFTOVERS_TIMEOUT_S = 10.0
_POLL_S = 0.2
_CONNECT_TIMEOUT_S = 3


def manage(data_dir: Path, arguments: Sequence[str]) -> int:
    """Runs `manage.py` with these arguments and returns its exit code.

    Where no process holds the data folder, PostgreSQL and Valkey run for as long as the command does. What
    the caller's environment names (DATABASE_URL, VALKEY_URL, SLUICE_ENV) wins over the instance's values.
    """
    folder = DataDir(data_dir)
    instance = folder.read_instance_env()
    deadline = time.monotonic() + _WAIT_FOR_INSTANCE_S
    while True:
        try:
            with folder.locked("manage"):
                return _with_own_services(folder, instance, arguments)
        except InstanceBusyError as busy:
            # A running instance serves us once its database answers. Another `manage` ends its servers when
            # it is done, so it is waited for.
            instance = folder.read_instance_env()
            if busy.purpose == "run" and _answers(_merged(instance)["DATABASE_URL"]):
                return _run(instance, arguments)
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _with_own_services(folder: DataDir, instance: Mapping[str, str], arguments: Sequence[str]) -> int:
    end_leftovers(folder.run, patience_s=_LEFTOVERS_TIMEOUT_S, pause=time.sleep)
    if not instance.get("STRIPE_API_BASE") and instance.get("STRIPE_SECRET_KEY"):
        # This instance talks to Stripe itself: no stand-in may come between.
        os.environ.setdefault("STRIPE_SECRET_KEY", instance["STRIPE_SECRET_KEY"])
    embedded = EmbeddedServices(folder, port_seed=int(instance["GATEWAY_PORT"]) - 1, with_model=False)
    try:
        embedded.start()
        return _run({**instance, **embedded.environment()}, arguments)
    finally:
        embedded.stop()


def _run(instance: Mapping[str, str], arguments: Sequence[str]) -> int:
    """Ctrl-C reaches the command by itself, since it shares our terminal; we only wait for it."""
    # A handler and not SIG_IGN, which the command would inherit.
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            env=child_environment(_merged(instance)),
            cwd=REPOSITORY,
            preexec_fn=death_signal_armer(signal.SIGTERM),  # noqa: PLW1509 - see devstack.process
        ) as command:
            signal.signal(signal.SIGTERM, lambda number, frame: command.terminate())
            code = command.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return code if code >= 0 else 128 - code


def _merged(instance: Mapping[str, str]) -> dict[str, str]:
    return {key: os.environ.get(key) or value for key, value in instance.items()}


def _answers(database_url: str) -> bool:
    try:
        psycopg.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S).close()
    except psycopg.OperationalError:
        return False
    return True
