"""A tenant that may use a model on a simulated engine, as most fault tests begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from devstack.engines.options import Flavour
from devstack.engines.testing import start_engine

if TYPE_CHECKING:
    from tests.faults.stage import Stage

SetStage = Callable[..., "Stage"]


@pytest.fixture
def set_stage(database: None) -> Iterator[SetStage]:
    """Starts an engine of a flavour and makes a model on it and a tenant; the engines end with the test."""
    from django.db import transaction

    from tests.factories import enable, make_backend, make_model, make_tenant
    from tests.faults.stage import Stage

    with ExitStack() as engines:

        def make(flavour: Flavour = "llamacpp", *, granted: str = "5.00", context: int = 8192) -> Stage:
            engine = engines.enter_context(
                start_engine(flavour, tokens_per_s=25, model="upstream", context=context)
            )
            backend_id = make_backend(engine=flavour, base_url=engine.url, max_concurrency=512)
            tenant = make_tenant(granted=granted)
            # In one commit: a gateway that looks in between would know the model without its deployment.
            with transaction.atomic(using="operator"):
                model = make_model(
                    backend_id=backend_id, context_tokens=context, max_output_tokens=context - 1024
                )
            enable(tenant, model)
            return Stage(engine, tenant, model)

        yield make
