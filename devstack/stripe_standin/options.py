"""Command line of the stand-in."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

DEFAULT_METHODS = "card,alipay,wechat_pay,us_bank_account"


@dataclass(frozen=True, slots=True)
class Options:
    """`listen_fd`: an inherited socket that replaces host and port. `parent_pid`: whose death ends us.

    `base_url` is what links to hosted pages begin with.
    """

    port: int
    listen_fd: int | None
    parent_pid: int | None
    store: Path
    base_url: str
    secret_key: str
    webhook_url: str | None
    webhook_secrets: list[str]
    methods: list[str] | None
    validate: bool


def parse_options(argv: list[str]) -> Options:
    """Leaves the process with status 2 and a message when the command line is wrong."""
    parser = argparse.ArgumentParser(prog="python -m devstack.stripe_standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fd", type=int, help="listen on this inherited socket")
    parser.add_argument("--parent-pid", type=int, help="die when this process dies")
    parser.add_argument("--store", type=Path, required=True, help="file that holds everything")
    parser.add_argument("--base-url", help="what links to hosted pages begin with")
    parser.add_argument("--secret-key", required=True, help="sk_test_…")
    parser.add_argument("--webhook-url", help="where events go")
    parser.add_argument("--webhook-secret", action="append", default=[], help="whsec_…, newest first")
    parser.add_argument("--methods", help=f"what the account has; {DEFAULT_METHODS} at first")
    parser.add_argument("--validate", action="store_true", help="compare with Stripe's description (tests)")
    given = parser.parse_args(argv)
    if not given.port and given.fd is None:
        parser.error("one of --port and --fd is needed")
    return Options(
        port=given.port,
        listen_fd=given.fd,
        parent_pid=given.parent_pid,
        store=given.store,
        base_url=given.base_url or f"http://127.0.0.1:{given.port}",
        secret_key=given.secret_key,
        webhook_url=given.webhook_url,
        webhook_secrets=given.webhook_secret,
        methods=given.methods.split(",") if given.methods else None,
        validate=given.validate,
    )
