"""A stand-in of Stripe, a web process that it posts to, and a worker; beat where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.stripe_standin.testing import Standin, running_standin
from tests.celery_process import RunningCelery, running_celery
from tests.web_process import RunningWeb, choose_port, running_web

PATH = "/webhooks/stripe"


@dataclass(frozen=True, slots=True)
class Stage:
    """environment: what makes the stand-in the Stripe of a process."""

    standin: Standin
    web: RunningWeb
    celery: RunningCelery
    environment: Mapping[str, str]


@contextmanager
def running_stage(folder: Path) -> Iterator[Stage]:
    port = choose_port()
    address = f"http://127.0.0.1:{port}{PATH}"
    with running_standin(folder / "stripe", webhook_url=address) as standin:
        environment: dict[str, Any] = {
            "STRIPE_SECRET_KEY": standin.secret_key,
            "STRIPE_WEBHOOK_SECRETS": standin.webhook_secret,
            "STRIPE_API_BASE": standin.url,
        }
        (folder / "worker").mkdir()
        with (
            running_web(folder, port=port, **environment) as web,
            running_celery(folder / "worker", **environment) as celery,
        ):
            yield Stage(standin, web, celery, environment)
