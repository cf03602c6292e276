"""The reviewed list of differences between the installed client and the published description."""

from __future__ import annotations

from typing import get_args

import stripe

from devstack.stripe_standin import resources  # noqa: F401 - registers the routes
from devstack.stripe_standin.routing import ROUTES
from devstack.stripe_standin.settings import API_VERSION
from devstack.stripe_standin.validation.client_types import alternatives, fields, params_type
from devstack.stripe_standin.validation.comparing import compare
from devstack.stripe_standin.validation.differences import (
    CLIENT_ONLY,
    DESCRIPTION_ONLY,
    NEWER_FIELDS,
    NEWER_VALUES,
)
from devstack.stripe_standin.validation.specification import Specification


def test_the_list_is_exactly_what_differs():
    client_only, description_only = compare(Specification())

    assert client_only == CLIENT_ONLY
    assert description_only == DESCRIPTION_ONLY


def test_newer_values_are_the_clients_and_not_the_descriptions():
    specification = Specification()
    for endpoint, name, value in NEWER_VALUES:
        method, template = endpoint.split()
        described = specification.request(method, template)["properties"][name]["enum"]
        kind = params_type(method, template)
        assert kind is not None
        words = {word for choice in alternatives(fields(kind)[name]) for word in get_args(choice)}
        assert value not in described
        assert value in words


def test_answers_have_nothing_that_is_not_described():
    assert frozenset() == NEWER_FIELDS


def test_the_standin_speaks_the_version_of_the_installed_client():
    assert stripe.api_version == API_VERSION


def test_every_endpoint_is_in_the_client_and_in_the_description():
    specification = Specification()
    for route in ROUTES:
        params_type(route.method, route.template)
        specification.request(route.method, route.template)
        specification.answer(route.method, route.template, 200)
