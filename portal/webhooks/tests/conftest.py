"""The whole way: a stand-in of Stripe that posts to a real web process, and a real worker behind it.

Imports are inside: this file may be read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from portal.webhooks.tests.stage import Stage


@pytest.fixture(scope="module")
def stage(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    from portal.webhooks.tests.stage import running_stage

    with running_stage(tmp_path_factory.mktemp("webhooks")) as running:
        yield running
