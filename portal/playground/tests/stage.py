"""What the playground's tests play on: people with sessions, sockets as browsers open them, and runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import websockets
from django.conf import settings
from django.db import connections
from django.test import Client
from websockets.asyncio.client import ClientConnection

from portal.kit.ids import PREFIXES, parse_public_id
from tenants.models import Membership, Role, User
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_tenant,
    unique_name,
)
from tests.waiting import wait_for
from tests.web_process import RunningWeb

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

ANSWER_WITHIN_S = 20.0
# Prices that leave a rounding in every line, so that a wrong rounding shows.
PRICES: Mapping[str, int] = {"input": 333_333_333, "cached_input": 33_333_337, "output": 1_234_567_891}


def cost_nanos(prompt: int, completion: int, *, cached: int = 0) -> int:
    """What a usage costs at PRICES: each line rounds half up, once."""
    lines = {"input": prompt - cached, "cached_input": cached, "output": completion}
    return sum((units * PRICES[name] + 500_000) // 1_000_000 for name, units in lines.items())


async def database(
    work: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
) -> ResultT:
    """Work of Django's, whose connections serve no event loop, in a thread that closes them again."""

    def run() -> ResultT:
        try:
            return work(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


@dataclass(slots=True)
class Person:
    """Somebody who is signed in."""

    user: User
    session_key: str

    @property
    def cookie(self) -> str:
        return f"{settings.SESSION_COOKIE_NAME}={self.session_key}"


def make_person() -> Person:
    """A person with a session and without an organization."""
    with role_scope("auth"):
        user = User.objects.create_user(f"{unique_name('person')}@customer.example", "a long password")
    client = Client()
    client.force_login(user)
    return Person(user, client.cookies[settings.SESSION_COOKIE_NAME].value)


def join(person: Person, tenant: TenantFixture, role: str = Role.DEVELOPER) -> None:
    with role_scope("operator"):
        Membership.objects.create(tenant_id=tenant.id, user=person.user, role=role)


def leave(person: Person, tenant: TenantFixture) -> None:
    with role_scope("operator"):
        Membership.objects.filter(tenant_id=tenant.id, user=person.user).delete()


@dataclass(slots=True)
class Ran:
    """All that a socket was sent about one run."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.of(kind)
        return found

    @property
    def text(self) -> str:
        return "".join(message.get("text", "") for message in self.of("delta"))

    @property
    def reasoning(self) -> str:
        return "".join(message.get("reasoning", "") for message in self.of("delta"))

    @property
    def request_id(self) -> UUID:
        return parse_public_id(PREFIXES["request"], self.one("queued")["request_id"])


class Page:
    """The socket of one open page."""

    def __init__(self, connection: ClientConnection, model: str) -> None:
        self.connection = connection
        self.model = model

    async def say(self, message: Any) -> None:
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        async with _limit():
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def begin(self, text: str, *, number: int = 1, model: str = "", **parameters: Any) -> None:
        turns = [{"role": "user", "content": text}]
        await self.say(
            {
                "type": "run",
                "id": number,
                "model": model or self.model,
                "messages": turns,
                "parameters": parameters,
            }
        )

    async def hear_until(self, *kinds: str) -> Ran:
        """Everything up to the first message of one of the kinds."""
        ran = Ran()
        while not ran.messages or ran.messages[-1]["type"] not in kinds:
            ran.messages.append(await self.hear())
        return ran

    async def run(self, text: str, **options: Any) -> Ran:
        """A run up to its receipt, or to the error that ends it."""
        await self.begin(text, **options)
        return await self.hear_until("done", "error")

    async def close_code(self) -> int:
        """Waits until the server closes the socket."""
        async with _limit():
            await self.connection.wait_closed()
        code = self.connection.close_code
        assert code is not None
        return code


def _limit() -> asyncio.Timeout:
    return asyncio.timeout(ANSWER_WITHIN_S)


@dataclass(slots=True)
class Stage:
    """An organization with a member who may chat with one model."""

    web: RunningWeb
    tenant: TenantFixture
    model: ModelFixture
    person: Person

    @asynccontextmanager
    async def page(
        self,
        person: Person | None = None,
        *,
        organization: str = "",
        origin: str | None = "",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Page]:
        """An open page of a person, the stage's own by default."""
        path = f"/ws/o/{organization or self.tenant.public_id}/playground"
        cookie = {"Cookie": (person or self.person).cookie}
        async with websockets.connect(
            self.web.socket_url + path,
            origin=self.web.url if origin == "" else origin,  # type: ignore[arg-type]
            additional_headers=cookie | (headers or {}),
            max_size=64 * 2**20,
            proxy=None,
            **options,
        ) as connection:
            yield Page(connection, self.model.slug)


def make_stage(
    web: RunningWeb, base_url: str, *, granted: str = "1.00", flavour: str = "generic", **model_fields: Any
) -> Stage:
    """An organization whose one member, a developer, has a model on one backend."""
    tenant = make_tenant(granted=granted)
    backend_id = make_backend(engine=flavour, base_url=base_url)
    model = make_model(backend_id=backend_id, upstream_model="sim-model", prices=PRICES, **model_fields)
    enable(tenant, model)
    person = make_person()
    join(person, tenant)
    return Stage(web, tenant, model, person)


def member_of(tenant: TenantFixture, role: str = Role.DEVELOPER) -> Person:
    person = make_person()
    join(person, tenant, role)
    return person


def settled(request_id: UUID) -> dict[str, Any]:
    """The hold of a request once it is resolved, and its one usage record under `usage` (None without)."""

    def resolved() -> dict[str, Any] | None:
        holds = rows_of("quotas_hold", request_id=request_id)
        return holds[0] if holds and holds[0]["state"] != "PENDING" else None

    hold = wait_for(resolved, 10.0, "the run's settlement")
    assert hold is not None
    usages = rows_of("quotas_usagerecord", request_id=request_id)
    return {**hold, "usage": usages[0] if usages else None}


def requests_of(tenant: TenantFixture) -> list[UUID]:
    return sorted(row["id"] for row in rows_of("quotas_inferencerequest", tenant_id=tenant.id))
