"""Compares what goes over the wire with Stripe's own descriptions. Only tests use it.

A request has to fit the parameter types of the installed client and Stripe's published OpenAPI description,
an answer the description's schemas; where the two versions differ, `differences.py` says so.
"""

from __future__ import annotations

from devstack.stripe_standin.api import Answer, Request
from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.forms import Tree, decode
from devstack.stripe_standin.routing import Route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.validation.answers import AnswerChecker
from devstack.stripe_standin.validation.client_types import ClientTypes
from devstack.stripe_standin.validation.requests import RequestChecker
from devstack.stripe_standin.validation.specification import Specification

__all__ = ["Validator"]


class Validator:
    """Keeps what it has read of both descriptions."""

    def __init__(self) -> None:
        specification = Specification()
        self._client_types = ClientTypes()
        self._requests = RequestChecker(specification)
        self._answers = AnswerChecker(specification)
        self._event_types = specification.event_types()

    def check(self, request: Request, endpoint: Route, answer: Answer) -> list[str]:
        """What does not fit, in words; nothing when all does."""
        try:
            tree: Tree = decode(request.query) | (decode(request.body) if request.method == "POST" else {})
        except ApiError as wrong:
            return [f"request: {wrong}"]
        problems = [f"client's types: {line}" for line in self._client_types.check(endpoint, tree)]
        problems += [f"description: {line}" for line in self._requests.check(endpoint, tree)]
        problems += [f"answer {answer.status}: {line}" for line in self._answers.check(endpoint, answer)]
        return problems

    def check_event(self, event: Obj) -> list[str]:
        """What does not fit in an event: its type has to exist, its object has a schema."""
        known = self._event_types
        problems = [] if event["type"] in known else [f"there is no event type {event['type']}"]
        obj = event["data"]["object"]
        name = f"deleted_{obj['object']}" if obj.get("deleted") else obj["object"]
        return problems + self._answers.check_object("event", event) + self._answers.check_object(name, obj)
