"""The running web process keeps what the API's description promises, whatever a program sends.

schemathesis makes the calls from the description itself, with right and with wrong values, in the name of
each role. The number of examples is small and the same ones come at every run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from portal.api.documentation import plain_document
from tenants.models import Role
from tests.factories import disable_distant_backends
from tests.isolation.api_cases import ARGUMENTS, ApiWorld, make_api_world, operator_token
from tests.web_process import RunningWeb, running_web

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# Each of these makes calls of its own, and what they ask does not depend on the role.
ASKED_ONCE = [ignored_auth, unsupported_method]

schema = schemathesis.openapi.from_dict(dict(plain_document()))
tenants_schema = schema.exclude(path_regex=r"^/api/v1/operator")
operators_schema = schema.include(path_regex=r"^/api/v1/operator")


@pytest.fixture(scope="module")
def busy_web(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWeb]:
    """A web process that lets a key call as often as it likes."""
    with running_web(tmp_path_factory.mktemp("web"), SLUICE_API_LIMIT_RPM="10000000") as running:
        yield running
    disable_distant_backends()


@pytest.fixture(scope="module")
def world(database: None) -> ApiWorld:
    return make_api_world()


@pytest.fixture(scope="module")
def tokens(world: ApiWorld) -> dict[Role, str]:
    return {role: world.token_of(role) for role in Role}


def settle_on_what_is_there(case: Any, world: ApiWorld) -> None:
    """Most calls that are meant to be right name things of the world instead of made-up ones."""
    if case.path_parameters and case.meta.generation.mode == GenerationMode.POSITIVE:
        if random.Random(str(case.path_parameters)).random() < 0.2:
            return
        for name in case.path_parameters:
            case.path_parameters[name] = world.ids[ARGUMENTS[name]]


def examples(count: int) -> settings:
    """So many calls an operation, the same at every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@tenants_schema.parametrize()
@examples(6)
def test_the_api_keeps_its_word_to_an_owner(
    case: Any, busy_web: RunningWeb, world: ApiWorld, tokens: dict[Role, str]
) -> None:
    settle_on_what_is_there(case, world)
    headers = {"Authorization": f"Bearer {tokens[Role.OWNER]}"}
    case.call_and_validate(base_url=busy_web.url, headers=headers, checks=[*CHECKS, *ASKED_ONCE])


@tenants_schema.parametrize()
@examples(2)
def test_the_api_keeps_its_word_to_others(
    case: Any, busy_web: RunningWeb, world: ApiWorld, tokens: dict[Role, str]
) -> None:
    """Making up a case takes longer than calling, so each is tried in the name of every other role."""
    settle_on_what_is_there(case, world)
    for role in Role:
        if role != Role.OWNER:
            headers = {"Authorization": f"Bearer {tokens[role]}"}
            case.call_and_validate(base_url=busy_web.url, headers=headers, checks=CHECKS)


@operators_schema.parametrize()
@examples(4)
def test_the_api_keeps_its_word_to_operators(case: Any, busy_web: RunningWeb, world: ApiWorld) -> None:
    settle_on_what_is_there(case, world)
    headers = {"Authorization": f"Bearer {operator_token()}"}
    case.call_and_validate(base_url=busy_web.url, headers=headers, checks=[*CHECKS, *ASKED_ONCE])
