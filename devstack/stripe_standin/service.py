"""The stand-in as a service of `make run`: there as long as no Stripe key is configured."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from devstack import ports
from devstack.datadir import private_folder
from devstack.packages import REPOSITORY
from devstack.probe import answers_ok
from devstack.process import Launch, bare_environment
from devstack.service import Service

WEBHOOK_PATH = "/webhooks/stripe"


class StripeStandin(Service):
    """Its keys are made once and remembered; its webhooks go to the pages of the same instance."""

    name = "stripe"
    slot = 3
    start_timeout_s = 30.0
    stop_patience_s = 5.0
    _key = ""
    _webhook_secret = ""

    @property
    def title(self) -> str:
        return "Stand-in for Stripe"

    @property
    def url(self) -> str:
        return f"http://{ports.HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {
            "STRIPE_SECRET_KEY": self._key,
            "STRIPE_WEBHOOK_SECRETS": self._webhook_secret,
            "STRIPE_API_BASE": self.url,
        }

    def _prepare(self) -> None:
        known = self.data_dir.recall(self.name)
        self._key = known.get("key") or f"sk_test_{secrets.token_hex(24)}"
        self._webhook_secret = known.get("webhook_secret") or f"whsec_{secrets.token_hex(24)}"
        self.data_dir.remember(self.name, key=self._key, webhook_secret=self._webhook_secret)
        private_folder(self.data_dir.root / self.name)

    def _launch(self) -> Launch:
        argv: list[str | Path] = [
            *(sys.executable, "-m", "devstack.stripe_standin", "--port", str(self.port)),
            *("--store", self.data_dir.root / self.name / "standin.sqlite3"),
            *("--base-url", self.url, "--secret-key", self._key, "--webhook-secret", self._webhook_secret),
            *("--webhook-url", f"http://{ports.HOST}:{self._port_seed}{WEBHOOK_PATH}"),
        ]
        return Launch(argv=argv, env=bare_environment(), cwd=REPOSITORY)

    def _is_ready(self) -> bool:
        return answers_ok(f"{self.url}/_standin/health")

    def _finish(self) -> None:
        return

    def _clean_up(self) -> None:
        return
