"""Everything that runs during a benchmark: PostgreSQL, Valkey, the backend, the gateway, and nginx."""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from benchmarks.meters import ANSWER_TIMEOUT_S, Meters
from benchmarks.orders import Order, Outcome, Target
from devstack import ports
from devstack.process import Child, Launch, ask_to_stop, bare_environment, kill, spawn, wait_until_ready
from devstack.testing import Services, start_services

REPOSITORY = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 60.0
STOP_PATIENCE_S = 30.0
DIRECT_PATH = "/direct/v1/chat/completions"
# What a client sends is counted, not what functions do for it; BEGIN and COMMIT are round trips as well.
_STATISTICS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "top",
    "pg_stat_statements.track_utility": "on",
}
_NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    upstream backend {{ server 127.0.0.1:{backend_port}; keepalive 4096; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /v1/ {{
            proxy_pass http://backend/nginx/v1/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(slots=True)
class Stage:
    """Running processes. `nginx` is None where it is not installed."""

    folder: Path
    services: Services
    backend: Child
    backend_port: int
    gateway: Child | None = None
    gateway_port: int = 0
    nginx: Child | None = None
    nginx_port: int = 0
    metrics_token: str = field(default_factory=secrets.token_urlsafe)

    def target(self, name: str, *, model: str, upstream_model: str, has_running_usage: bool) -> Target:
        """Where calls of this name go: gateway, nginx or direct. has_running_usage: what the gateway asks
        of its backend without being asked, the others must ask for."""
        host = ports.HOST
        if name == "gateway":
            return Target(name, host, self.gateway_port, "/v1/chat/completions", model)
        options = {"continuous_usage_stats": True} if has_running_usage else {}
        if name == "nginx":
            return Target(name, host, self.nginx_port, "/v1/chat/completions", upstream_model, options)
        return Target(name, host, self.backend_port, DIRECT_PATH, upstream_model, options)

    def served(self) -> dict[str, dict[str, int]]:
        """The backend's own books."""
        books: dict[str, dict[str, int]] = json.loads(_get(f"http://{ports.HOST}:{self.backend_port}/stats"))
        return books

    def meters(self) -> Meters:
        assert self.gateway is not None
        assert self.services.postgres.child is not None
        assert self.services.valkey.child is not None
        processes = {
            "gateway": self.gateway.pid,
            "postgres": self.services.postgres.child.pid,
            "valkey": self.services.valkey.child.pid,
            "backend": self.backend.pid,
        }
        if self.nginx is not None:
            processes["nginx"] = self.nginx.pid
        return Meters(
            processes=processes,
            database_url=self.services.postgres.superuser_url,
            valkey_url=self.services.valkey_url,
            gateway_url=f"http://{ports.HOST}:{self.gateway_port}",
            metrics_token=self.metrics_token,
            gateway_role="sluice_dataplane",
        )


@contextmanager
def running_stage(folder: Path) -> Iterator[Stage]:
    """Servers and the backend; the environment of this process names them. The gateway comes later, when
    there are organizations that it may serve."""
    _allow_files()
    with ExitStack() as stack:
        services = start_services(folder, postgres_settings=_STATISTICS)
        stack.callback(services.stop)
        with psycopg.connect(services.postgres.superuser_url) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        stage = Stage(folder, services, *_start_backend(folder))
        stack.callback(
            lambda: _stop(*(child for child in (stage.gateway, stage.nginx, stage.backend) if child))
        )
        os.environ.update(
            SLUICE_ENV=os.environ.get("SLUICE_ENV", "development"),
            DATABASE_ROLE="auth",
            DATABASE_URL=services.database_url,
            VALKEY_URL=services.valkey_url,
            SECRETS_DIR=str(services.secrets_dir),
            METRICS_TOKEN=stage.metrics_token,
        )
        yield stage


def start_gateway(stage: Stage) -> None:
    port = ports.choose(28_700)
    environment = {**os.environ, "DATABASE_ROLE": "dataplane", "SLUICE_LOG_LEVEL": "WARNING"}
    stage.gateway_port = port
    stage.gateway = _start(
        stage.folder,
        "gateway",
        Launch([sys.executable, "-m", "portal.gateway", "--port", str(port)], environment, cwd=REPOSITORY),
        lambda: _answers(f"http://{ports.HOST}:{port}/readyz"),
    )


def start_nginx(stage: Stage) -> bool:
    """False where it is not installed."""
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
    if program is None:
        return False
    folder = stage.folder / "nginx"
    folder.mkdir(exist_ok=True)
    port = ports.choose(28_800)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    configuration = _NGINX.format(
        folder=folder, files=files, connections=min(files, 16_384), backend_port=stage.backend_port, port=port
    )
    (folder / "nginx.conf").write_text(configuration)
    stage.nginx_port = port
    stage.nginx = _start(
        stage.folder,
        "nginx",
        Launch([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], bare_environment()),
        lambda: _answers(f"http://{ports.HOST}:{port}/v1/models"),
    )
    return True


def carry_out(order: Order, *, when_steady: Callable[[], None] = lambda: None) -> Outcome:
    """Have the load generator carry out an order, in a process of its own.

    when_steady: called when all streams have begun; the load goes on meanwhile.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "steady":
                when_steady()
            else:
                return msgspec.convert(event, Outcome)
    raise RuntimeError(f"the load generator ended with {process.returncode}")


def _allow_files() -> None:
    """A stream needs two sockets in the gateway; children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _start_backend(folder: Path) -> tuple[Child, int]:
    port = ports.choose(28_600)
    child = _start(
        folder,
        "backend",
        Launch(
            [sys.executable, "-m", "benchmarks.backend", "--port", str(port)],
            dict(os.environ),
            cwd=REPOSITORY,
        ),
        lambda: _answers(f"http://{ports.HOST}:{port}/health"),
    )
    return child, port


def _start(folder: Path, name: str, launch: Launch, is_ready: Callable[[], bool]) -> Child:
    child = spawn(name, launch, log_path=folder / "logs" / f"{name}.log", run_dir=folder / "run")
    wait_until_ready(child, is_ready, timeout_s=READY_TIMEOUT_S, pause=time.sleep)
    return child


def _stop(*children: Child) -> None:
    kill(ask_to_stop(children, signal.SIGTERM, patience_s=STOP_PATIENCE_S))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - our own processes
        body: bytes = answer.read()
    return body


def _answers(url: str) -> bool:
    try:
        _get(url)
    except (OSError, urllib.error.URLError):
        return False
    return True


def settings_that_count(environment: Mapping[str, str]) -> dict[str, str]:
    """Tunables that the caller has set: they belong to the result."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith("SLUICE_")}
