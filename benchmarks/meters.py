"""What a run costs: processor time by process, memory, and what the database and Valkey were asked."""

from __future__ import annotations

import platform
import re
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import psycopg
import redis

_BATCH = re.compile(r'^sluice_batch_rows_(count|sum)\{batch="(\w+)"\} (\S+)$', re.MULTILINE)
# Commands of Valkey that a script runs are part of the script's own round trip.
_SCRIPT_COMMANDS = ("evalsha", "eval", "fcall", "evalsha_ro", "fcall_ro")

# A gateway whose core is overloaded answers late, which is a result and no reason to give up.
ANSWER_TIMEOUT_S = 60.0


def cpu_ns(pid: int) -> int:
    """User and system time of a process with all its threads; 0 when it is gone."""
    if platform.system() == "Linux":
        try:
            # The kernel's clock of another process (see clock_getcpuclockid), exact where /proc counts ticks.
            return time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            return 0
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0
    return round((times.user + times.system) * 1e9)


@dataclass(frozen=True, slots=True)
class FamilyClock:
    """Processor time of a process and its children, live ones by process id."""

    live_ns: Mapping[int, int]
    reaped_ns: int

    @classmethod
    def read(cls, pid: int) -> FamilyClock:
        parent = psutil.Process(pid)
        times = parent.cpu_times()
        live_ns = {each: cpu_ns(each) for each in (pid, *(child.pid for child in parent.children()))}
        reaped_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        # Whoever ended while we looked is among the reaped next time.
        return cls({each: ns for each, ns in live_ns.items() if ns}, round(reaped_s * 1e9))

    def since(self, earlier: FamilyClock) -> int:
        """A child that has ended in between is in the parent's own count of such, with its whole life."""
        live = sum(now_ns - earlier.live_ns.get(pid, 0) for pid, now_ns in self.live_ns.items())
        ended = sum(was_ns for pid, was_ns in earlier.live_ns.items() if pid not in self.live_ns)
        return live + max(0, self.reaped_ns - earlier.reaped_ns - ended)


def _rss_bytes(pid: int) -> int:
    """Resident memory of a process and its children. What they share counts several times."""
    parent = psutil.Process(pid)
    total = 0
    for each in (parent, *parent.children()):
        # Workers of the database come and go.
        with suppress(psutil.NoSuchProcess):
            total += int(each.memory_info().rss)
    return total


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of every meter at one moment. Counts are of the server's whole life; clocks are read before
    and after the rest, so that reading counts for nobody."""

    at_ns: int
    clocks_before: Mapping[str, FamilyClock]
    clocks_after: Mapping[str, FamilyClock]
    rss_bytes: Mapping[str, int]
    statements: int
    transactions: int
    valkey_commands: int
    valkey_scripts: int
    batches: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two readings. batches: by name, how many and how many rows they had."""

    duration_ns: int
    cpu_ns: Mapping[str, int]
    statements: int
    transactions: int
    valkey_commands: int
    valkey_scripts: int
    batches: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Meters:
    """processes: name → process id; children count with their parent. database_url: of somebody who may see
    everybody's statements. `gateway_url` is asked for its metrics, where there is one."""

    processes: Mapping[str, int]
    database_url: str
    valkey_url: str
    gateway_url: str
    metrics_token: str
    gateway_role: str

    def read(self) -> Reading:
        at_ns, clocks = time.monotonic_ns(), self._clocks()
        batches = self._batches()
        statements, transactions = self._database()
        commands, scripts = self._valkey()
        return Reading(
            at_ns=at_ns,
            clocks_before=clocks,
            rss_bytes={name: _rss_bytes(pid) for name, pid in self.processes.items()},
            statements=statements,
            transactions=transactions,
            valkey_commands=commands,
            valkey_scripts=scripts,
            batches=batches,
            clocks_after=self._clocks(),
        )

    def _clocks(self) -> dict[str, FamilyClock]:
        return {name: FamilyClock.read(pid) for name, pid in self.processes.items()}

    def _database(self) -> tuple[int, int]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute(
                """
                SELECT (SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s
                         JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = %s AND s.toplevel),
                       (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())
                """,
                (self.gateway_role,),
            ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def _valkey(self) -> tuple[int, int]:
        with redis.Redis.from_url(self.valkey_url) as client:
            stats = client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in stats.items()}
        own = calls.pop("info", 0)
        assert own >= 0
        return sum(calls.values()), sum(calls.get(name, 0) for name in _SCRIPT_COMMANDS)

    def _batches(self) -> dict[str, tuple[float, float]]:
        request = urllib.request.Request(  # noqa: S310 - our own process
            f"{self.gateway_url}/metrics", headers={"Authorization": f"Bearer {self.metrics_token}"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - our own process
            page = answer.read().decode()
        found: dict[str, dict[str, float]] = {}
        for what, name, value in _BATCH.findall(page):
            found.setdefault(name, {})[what] = float(value)
        return {name: (values.get("count", 0.0), values.get("sum", 0.0)) for name, values in found.items()}


def between(earlier: Reading, later: Reading) -> Usage:
    return Usage(
        duration_ns=later.at_ns - earlier.at_ns,
        cpu_ns={name: clock.since(earlier.clocks_after[name]) for name, clock in later.clocks_before.items()},
        statements=later.statements - earlier.statements,
        transactions=later.transactions - earlier.transactions,
        valkey_commands=later.valkey_commands - earlier.valkey_commands,
        valkey_scripts=later.valkey_scripts - earlier.valkey_scripts,
        batches={
            name: tuple(
                round(now - was)
                for now, was in zip(counts, earlier.batches.get(name, (0.0, 0.0)), strict=True)
            )  # type: ignore[misc]
            for name, counts in later.batches.items()
        },
    )
