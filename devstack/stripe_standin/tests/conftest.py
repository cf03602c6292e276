"""One stand-in for a file of tests, Stripe's own client in front of it, and somebody who receives events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin, running_standin


class Receiver:
    """Keeps what was posted. `status` is what it answers; it can be changed."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[bytes, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((body, self.headers["Stripe-Signature"]))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def events(self, secret: str) -> list[Any]:
        """What was received, each verified by Stripe's own code."""
        return [stripe.Webhook.construct_event(body, header, secret) for body, header in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    with running_standin(tmp_path_factory.mktemp("stripe")) as running:
        yield running


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves its weather to the next one, and every request and answer fits what Stripe describes."""
    yield
    if "standin" in request.fixturenames:
        control = request.getfixturevalue("standin").control
        control.chaos()
        control.post("faults", clear=True)
        assert control.violations() == []


@pytest.fixture
def client(standin: Standin) -> stripe.StripeClient:
    return client_of(standin)


def client_of(standin: Standin, key: str | None = None, **options: Any) -> stripe.StripeClient:
    options = {"max_network_retries": 0, **options}
    return stripe.StripeClient(key or standin.secret_key, base_addresses={"api": standin.url}, **options)


def make_customer(client: stripe.StripeClient, **more: Any) -> str:
    params: Any = {"email": "pat@example.com", "name": "Pat", "address": {"country": "DE"}, **more}
    return client.v1.customers.create(params).id


def session_params(**more: Any) -> Any:
    """A checkout session over 20.00."""
    return {
        "mode": "payment",
        "success_url": "http://127.0.0.1:9/back?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:9/away",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": "usd",
                    "unit_amount": 2000,
                    "tax_behavior": "exclusive",
                    "product_data": {"name": "Credit"},
                },
            }
        ],
        **more,
    }


def refused(standin: Standin) -> list[str]:
    """What the validators found in requests that were wrong on purpose; it is forgotten then."""
    found = [violation["what"] for violation in standin.control.violations()]
    standin.control.post("violations/clear")
    return found


def plain(metadata: stripe.StripeObject | None) -> dict[str, str]:
    """Metadata as a dict."""
    return {} if metadata is None else metadata.to_dict()
