"""Asks one backend whether it is there, which models it serves and what version it runs, when an operator
wants to know. Bounded in time and size; redirects are not followed, so that a credential goes nowhere else.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
from django.db import connections

from models_catalog.fleet.inventory import BackendNotFound
from models_catalog.models import Engine, ServingBackend
from portal.kit.secrets import SecretError, SecretStore
from tenants.scope import scope_alias

PROBE_TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 2**20
MAX_MODELS: Final = 100
MAX_NAME: Final = 200
MAX_VERSION: Final = 64

MODELS_PATH: Final = "/v1/models"
# Where each engine says its version, and under what name.
VERSION_PATHS: Final[Mapping[str, tuple[str, str]]] = {
    Engine.VLLM: ("/version", "version"),
    Engine.SGLANG: ("/get_server_info", "version"),
    Engine.LLAMACPP: ("/props", "build_info"),
}
_UNPRINTABLE: Final = re.compile(r"[^ -~\u00a0-\uffff]")


class InsideTransaction(RuntimeError):
    """A backend was to be asked while a transaction was open."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of it. `error` is empty when the backend answered with its models; `took_ms` is how long that
    took. `version` is empty where the engine does not say."""

    is_reachable: bool
    error: str
    models: tuple[str, ...]
    version: str
    took_ms: int


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


def probe_backend(
    *, backend_id: UUID, secrets: SecretStore | None, timeout_s: float = PROBE_TIMEOUT_S
) -> Probe:
    """Ask a backend now, in whatever state it is. Errors: BackendNotFound, InsideTransaction."""
    if connections[scope_alias()].in_atomic_block:
        raise InsideTransaction("backends are not asked inside a transaction")
    backend = ServingBackend.objects.filter(id=backend_id).first()
    if backend is None:
        raise BackendNotFound("no such backend")
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if backend.credential_encrypted:
        try:
            if secrets is None:
                raise SecretError("there is no secret store")
            headers["Authorization"] = f"Bearer {secrets.decrypt(backend.credential_encrypted)}"
        except SecretError:
            return Probe(False, "its credential cannot be read", (), "", 0)
    return asyncio.run(_probe(backend.base_url.rstrip("/"), backend.engine, headers, timeout_s))


async def _probe(base_url: str, engine: str, headers: Mapping[str, str], timeout_s: float) -> Probe:
    path, name = VERSION_PATHS.get(engine, ("", ""))
    # An answer is read as it was sent: a compressed one could unfold to any size.
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        auto_decompress=False,
        trust_env=False,
    ) as session:
        listed, told = await asyncio.gather(
            _get(session, base_url + MODELS_PATH),
            _get(session, base_url + path) if path else _nothing(),
        )
    models, error = (_read_models(listed.body), "") if listed.body is not None else ((), listed.error)
    if models is None:
        models, error = (), "answered something else than a list of models"
    return Probe(
        is_reachable=listed.status is not None,
        error=error,
        models=models,
        version=_read_version(told.body, name) if told.body is not None else "",
        took_ms=listed.took_ms,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """`status` is None when there was none, `body` when there is nothing to read in it."""

    status: int | None
    body: bytes | None
    error: str
    took_ms: int


async def _nothing() -> _Answer:
    return _Answer(None, None, "", 0)


async def _get(session: aiohttp.ClientSession, url: str) -> _Answer:
    begun_s = time.monotonic()
    status, body, error = None, None, ""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            status = answer.status
            if status != 200:
                error = f"answered HTTP {status}"
            else:
                body = await _bounded(answer)
                error = "" if body is not None else "the answer is too large"
    except TimeoutError:
        error = "no answer in time"
    except (aiohttp.ClientError, OSError, ValueError) as failure:
        # The message of a connection error may name addresses; its kind says enough.
        error = f"not reachable ({type(failure).__name__})"
    return _Answer(status, body, error, round((time.monotonic() - begun_s) * 1000))


async def _bounded(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None when it is larger than MAX_ANSWER_BYTES."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _read_models(body: bytes) -> tuple[str, ...] | None:
    """The names in a list of models, None when it is none."""
    try:
        listed = msgspec.json.decode(body, type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return tuple(_printable(model.id, MAX_NAME) for model in listed.data[:MAX_MODELS])


def _read_version(body: bytes, name: str) -> str:
    try:
        told = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    version = told.get(name)
    return _printable(version, MAX_VERSION) if isinstance(version, str) else ""


def _printable(text: str, length: int) -> str:
    """Another machine's text, fit for a page."""
    return _UNPRINTABLE.sub("", text)[:length]
