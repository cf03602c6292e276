"""One request to /v1: key, version, idempotency, faults, the handler in a transaction, expansion."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from devstack.stripe_standin import resources  # noqa: F401 - registers the routes
from devstack.stripe_standin.errors import ApiError, CommittedError
from devstack.stripe_standin.expansion import expand
from devstack.stripe_standin.faults import Faults
from devstack.stripe_standin.forms import Params, decode
from devstack.stripe_standin.keys import check_key, check_version
from devstack.stripe_standin.routing import Call, Route, match
from devstack.stripe_standin.settings import API_VERSION
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, shown, token

_KEY_LIVES_S = 86_400
_BROKEN = {
    "error": {
        "message": "An unknown error occurred. This is a fault that the stand-in was told to show.",
        "type": "api_error",
    }
}


@dataclass(slots=True)
class Request:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str


@dataclass(slots=True)
class Answer:
    """`lost`: it is not sent, the connection breaks instead."""

    status: int
    body: Obj
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False

    def encoded(self) -> bytes:
        return json.dumps(self.body, indent=2).encode()


class Api:
    """Serves requests one at a time; only what the wire itself would do is concurrent."""

    def __init__(self, world: World, faults: Faults, validator: Any = None) -> None:
        self._world = world
        self._faults = faults
        self._validator = validator
        self._running: set[str] = set()

    async def serve(self, request: Request) -> Answer:
        request_id = "req_" + token(14)
        found = match(request.method, request.path)
        fault = self._faults.of(f"{request.method} {request.path}")
        try:
            answer = await self._answer(request, request_id, found, fault)
        except ApiError as error:
            answer = Answer(error.status, error.body)
        answer.headers |= {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        self._log(request, request_id, found, answer, fault)
        if self._validator is not None and found is not None:
            self._validate(request, request_id, found[0], answer)
        if fault == "answer_lost" and answer.status < 400:
            answer.lost = True
        return answer

    async def _answer(
        self,
        request: Request,
        request_id: str,
        found: tuple[Route, tuple[str, ...]] | None,
        fault: str | None,
    ) -> Answer:
        if fault == "rate_limit":
            headers = {"Stripe-Should-Retry": "true"}
            message = "Too many requests. This is a fault that the stand-in was told to show."
            body = ApiError(429, message, code="rate_limit").body
            return Answer(429, body, headers)
        check_key(self._world, request.headers, found[0] if found else None)
        check_version(request.headers)
        if found is None:
            raise ApiError(
                404,
                f"Unrecognized request URL ({request.method}: {request.path}). The stand-in serves what it "
                "was taught only.",
            )
        if fault == "error_before":
            return Answer(500, _BROKEN)
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        if key is None:
            await self._wait()
            return self._execute(request, request_id, found, fault, None)
        if key in self._running:
            raise ApiError(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably "
                "means you submitted twice, and the other request is still going through): "
                f"{key}. Please try again later.",
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        self._running.add(key)
        try:
            await self._wait()
            return self._replayed(request, key) or self._execute(request, request_id, found, fault, key)
        finally:
            self._running.discard(key)

    async def _wait(self) -> None:
        if self._world.chaos.latency_ms:
            await asyncio.sleep(self._world.chaos.latency_ms / 1000)

    def _replayed(self, request: Request, key: str) -> Answer | None:
        row = self._world.store.db.execute(
            "SELECT fingerprint, status, body, created FROM idempotency WHERE key = ?", (key,)
        ).fetchone()
        if row is None or row[3] < self._world.now() - _KEY_LIVES_S:
            return None
        if row[0] != _fingerprint(request):
            raise ApiError(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used "
                f"with. Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        headers = {"Idempotent-Replayed": "true", "Original-Request": "req_replayed"}
        return Answer(row[1], json.loads(row[2]), headers)

    def _execute(
        self,
        request: Request,
        request_id: str,
        found: tuple[Route, tuple[str, ...]],
        fault: str | None,
        key: str | None,
    ) -> Answer:
        """Runs the handler; what it wrote and what the key remembers are committed together."""
        world, store = self._world, self._world.store
        world.request_id, world.idempotency_key = request_id, key
        executed = True
        try:
            with store.transaction():
                try:
                    answer = self._handle(request, found)
                except CommittedError as declined:
                    answer = Answer(declined.error.status, declined.error.body)
                if fault == "error_stored":
                    raise _InjectedError
                if fault == "error_after":
                    answer = Answer(500, _BROKEN)
                self._keep(request, key, answer)
        except ApiError as error:
            answer, executed = Answer(error.status, error.body), error.executed
        except _InjectedError:
            answer = Answer(500, _BROKEN)
        else:
            return self._keyed(answer, key)
        finally:
            world.request_id = world.idempotency_key = None
        if executed:
            with store.transaction():
                self._keep(request, key, answer)
        return self._keyed(answer, key)

    def _handle(self, request: Request, found: tuple[Route, tuple[str, ...]]) -> Answer:
        tree = decode(request.query) | (decode(request.body) if request.method == "POST" else {})
        params = Params(tree)
        paths = params.texts("expand")
        endpoint, ids = found
        call = Call(self._world, params, tuple(unquote(part) for part in ids), request.path)
        result = endpoint.handler(call)
        params.refuse_unread()
        # The store has its own copy: what is expanded here is shown here only.
        return Answer(200, shown(expand(self._world, result, paths)))

    def _keep(self, request: Request, key: str | None, answer: Answer) -> None:
        if key is not None:
            self._world.store.db.execute(
                "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body, "
                "created = excluded.created",
                (key, _fingerprint(request), answer.status, json.dumps(answer.body), self._world.now()),
            )

    @staticmethod
    def _keyed(answer: Answer, key: str | None) -> Answer:
        if key is not None:
            answer.headers["Idempotency-Key"] = key
        return answer

    def _log(
        self,
        request: Request,
        request_id: str,
        found: tuple[Route, tuple[str, ...]] | None,
        answer: Answer,
        fault: str | None,
    ) -> None:
        self._world.store.db.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request_id,
                time.time(),
                request.method,
                request.path,
                found[0].name if found else None,
                answer.status,
                request.headers.get("idempotency-key"),
                fault,
            ),
        )

    def _validate(self, request: Request, request_id: str, endpoint: Route, answer: Answer) -> None:
        try:
            problems = self._validator.check(request, endpoint, answer)
        except Exception as broken:  # noqa: BLE001 - what isn't understood must not pass, nor hide the answer
            problems = [f"the validator failed: {broken!r}"]
        for problem in problems:
            self._world.store.db.execute(
                "INSERT INTO violations (request, route, what) VALUES (?, ?, ?)",
                (request_id, endpoint.name, problem),
            )


class _InjectedError(Exception):
    """Undoes what a handler did."""


def _fingerprint(request: Request) -> str:
    return hashlib.sha256(f"{request.method} {request.path}?{request.body}".encode()).hexdigest()
