"""What the tests of catalog files share: names of their own, and a short way to apply a text."""

from __future__ import annotations

import secrets
import textwrap
from collections.abc import Mapping
from datetime import datetime

from django.conf import settings

from models_catalog.catalog_file import CatalogChanges, CatalogDocument, apply_catalog
from models_catalog.models import CatalogRevision
from portal.kit.secrets import SecretStore
from tenants.scope import role_scope

POOL = "- {{code: pool-{n}, name: Pool, accelerator_kind: cpu, region: here}}"
BACKEND = "- {{code: backend-{n}, pool: pool-{n}, engine: vllm, base_url: 'http://e:1', max_concurrency: 4}}"
MODEL = """\
- slug: acme/m-{n}
  display_name: M
  context_tokens: 4096
  max_output_tokens: 1024
  default_output_cap_tokens: 256
"""
DEPLOYMENT = "- {{backend: backend-{n}, upstream_model: up}}"
LINES = "[{class: input, price_per_million: '1'}, {class: output, price_per_million: '2'}]"


def fresh_name() -> str:
    """A suffix that makes the names of one test its own."""
    return secrets.token_hex(4)


def store() -> SecretStore:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE


def apply(
    text: str,
    *,
    dry_run: bool = False,
    environ: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> CatalogChanges:
    with role_scope("operator"):
        return apply_catalog(
            document=CatalogDocument(textwrap.dedent(text), "catalog.yaml", environ or {}),
            secrets=store(),
            dry_run=dry_run,
            now=now,
            currencies=("USD", "CNY"),
        )


def revision() -> int:
    with role_scope("operator"):
        return CatalogRevision.objects.get().revision


def whole_file(n: str) -> str:
    """One of each, with the prices of `LINES` in USD."""
    model = MODEL + "  deployments:\n  " + DEPLOYMENT + "\n"
    text = f"pools:\n{POOL}\nbackends:\n{BACKEND}\nmodels:\n{model}".format(n=n)
    return f"{text}  prices:\n  - {{currency: USD, lines: {LINES}}}\n"


def model_file(n: str, *prices: str) -> str:
    """One model with these prices, each in flow style."""
    listed = "".join(f"  - {price}\n" for price in prices)
    return f"models:\n{MODEL}".format(n=n) + (f"  prices:\n{listed}" if prices else "")


def usd(amount: str, active_from: str = "") -> str:
    """A price in USD, the same for input and output."""
    begins = f"active_from: {active_from}, " if active_from else ""
    lines = ", ".join(f"{{class: {each}, price_per_million: '{amount}'}}" for each in ("input", "output"))
    return f"{{currency: USD, {begins}lines: [{lines}]}}"
