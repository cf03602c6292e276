"""One PostgreSQL and one Valkey for the whole test session, real and migrated.

Tests commit for real and each makes its own organization, so they do not meet; at the end the audit
of every invariant runs over all that they left behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.kept_clusters import KeptClusters
from devstack.testing import Services, start_services
from tests.gateway_process import RunningGateway, running_gateway
from tests.web_process import RunningWeb, running_web

SERVICES = pytest.StashKey[Services]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
# Tests kill processes, and what those wrote survives that without; only a machine's end would take it away.
# Connections are made by the thousand, and their passwords guard nothing.
_SERVER = {"fsync": "off", "scram_iterations": "1"}


def pytest_configure(config: pytest.Config) -> None:
    """Django reads its settings when test modules are collected, so the servers start before that."""
    os.environ["SLUICE_ENV"] = "test"
    os.environ["DATABASE_ROLE"] = "auth"
    folder = tempfile.TemporaryDirectory(prefix="sluice-test-", ignore_cleanup_errors=True)
    # Another server can be tested against, such as the lowest version that is supported.
    other_server = os.environ.get("TEST_DATABASE_URL")
    services = start_services(
        Path(folder.name), postgres_settings=_SERVER, clusters=None if other_server else KeptClusters()
    )
    config.stash[FOLDER] = folder
    config.stash[SERVICES] = services
    from portal.kit.secrets import SecretStore

    SecretStore.create_missing(services.secrets_dir)
    os.environ["DATABASE_URL"] = other_server or services.database_url
    os.environ["VALKEY_URL"] = services.valkey_url
    os.environ["SECRETS_DIR"] = str(services.secrets_dir)
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings.test"
    import django
    from django.test.utils import setup_test_environment

    django.setup()
    setup_test_environment()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVICES in config.stash:
        config.stash[SERVICES].stop()
    if FOLDER in config.stash:
        config.stash[FOLDER].cleanup()


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services:
    return pytestconfig.stash[SERVICES]


@pytest.fixture(scope="session")
def database(services: Services) -> Iterator[None]:
    """A migrated database; when the session ends, every invariant must hold on what the tests left."""
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", database="owner", verbosity=0)
    connections.close_all()
    services.keep_cluster(KeptClusters())
    yield
    from quotas import audit
    from tests.database import close_idle

    close_idle()
    violated = [result for result in audit.run() if not result.holds]
    connections.close_all()
    assert not violated, f"the tests left violated invariants behind: {violated}"


@pytest.fixture(scope="session")
def gateway(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway process that tests share; tests that kill or stop one start their own."""
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="session")
def web(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWeb]:
    """The web process that tests share; its pages name the shared gateway as the API."""
    with running_web(tmp_path_factory.mktemp("web"), API_BASE=gateway.api_base) as running:
        yield running
