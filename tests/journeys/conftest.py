"""What every journey begins with: a browser, windows that complain, and a way behind the pages."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from devstack.packages import REPOSITORY
from tests.journeys.backstage import Backstage, open_backstage
from tests.journeys.chromium import MISSING, find_chromium, is_required, running_chromium
from tests.journeys.visits import TIMEOUT_MS, Visits
from tests.web_process import RunningWeb

FAILED = pytest.StashKey[bool]()
# Other parts of the suite share the processors: what is right in the end may take its time.
expect.set_options(timeout=TIMEOUT_MS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers whether the test failed, for the fixture that then takes pictures."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where pictures go: ARTIFACTS, else a folder that is not committed."""
    folder = Path(os.environ.get("ARTIFACTS") or REPOSITORY / "artifacts").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="package")
def backstage(database: None) -> Iterator[Backstage]:
    with open_backstage() as opened:
        yield opened


@pytest.fixture(scope="package")
def browser(backstage: Backstage, web: RunningWeb) -> Iterator[Browser]:
    """One Chromium for all journeys. It ends with them, because no event loop can run beside it."""
    program = find_chromium()
    if program is None:
        if is_required():
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with running_chromium(program) as running:
        yield running


@pytest.fixture
def visits(
    browser: Browser, web: RunningWeb, artifacts: Path, request: pytest.FixtureRequest
) -> Iterator[Visits]:
    """Windows of one test. Afterwards nothing may have gone wrong in them that was not expected."""
    opened = Visits(browser, web.url)
    with attended(opened, web):
        yield opened
        _photograph_failure(opened, artifacts, request)
        opened.close()


@pytest.fixture(scope="module")
def lasting_visits(browser: Browser, web: RunningWeb) -> Iterator[Visits]:
    """Windows that stay open for all tests of a module; `windows` attends to them for one test."""
    opened = Visits(browser, web.url)
    yield opened
    opened.close()


@pytest.fixture
def windows(
    lasting_visits: Visits, web: RunningWeb, artifacts: Path, request: pytest.FixtureRequest
) -> Iterator[Visits]:
    """The module's windows, empty before and after a test; nothing may have gone wrong in them meanwhile."""
    with attended(lasting_visits, web):
        yield lasting_visits
        _photograph_failure(lasting_visits, artifacts, request)
        lasting_visits.leave()


@contextmanager
def attended(opened: Visits, web: RunningWeb) -> Iterator[None]:
    """Errors: AssertionError for what goes wrong in the windows, or in the web process, during the block."""
    # What other tests have caused is not this test's fault; the end of the session shows it.
    before = len(web.alarms())
    yield
    alarms = web.alarms()[before:]
    web.reported.update(alarms)
    heard = opened.complaints.take()
    assert not heard, "\n".join(["the pages complained:", *heard])
    assert not alarms, "\n".join(["the web process logged:", *alarms])


def _photograph_failure(opened: Visits, artifacts: Path, request: pytest.FixtureRequest) -> None:
    if request.node.stash.get(FAILED, True):
        opened.photograph(artifacts / "failed", request.node.name.replace("/", "_"))
