"""The stand-in as a service of an instance, and what it brings along."""

from __future__ import annotations

import subprocess
import sys

import stripe

from devstack.datadir import DataDir
from devstack.packages import REPOSITORY
from devstack.stripe_standin.service import StripeStandin
from devstack.stripe_standin.tests.conftest import make_customer


def test_started_again_it_is_the_same_account(tmp_path):
    folder = DataDir(tmp_path)
    folder.create()
    service = StripeStandin(folder, port_seed=4321)
    try:
        service.start()
        environment = service.environment()
        client = stripe.StripeClient(
            environment["STRIPE_SECRET_KEY"], base_addresses={"api": environment["STRIPE_API_BASE"]}
        )
        customer = make_customer(client)
        (endpoint,) = client.v1.webhook_endpoints.list().data
        assert endpoint.url == "http://127.0.0.1:4321/webhooks/stripe"
        service.start()
        assert service.environment() == environment
        assert client.v1.customers.retrieve(customer).id == customer
        assert len(client.v1.webhook_endpoints.list().data) == 1
    finally:
        service.stop()


def test_without_validation_it_needs_neither_stripes_client_nor_its_description():
    code = (
        "import sys, devstack.stripe_standin.app, devstack.stripe_standin.webhooks; "
        "sys.exit(any(name.partition('.')[0] in ('stripe', 'faststripe') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
