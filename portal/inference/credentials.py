"""Who calls. A cache saves parsing and hashing, nothing else: what a key may do is asked at each call."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, ResultT, in_time
from portal.inference.errors import management_key, overloaded, suspended, wrong_key
from portal.kit.secrets import MalformedApiKey, MissingSecret, SecretStore, WrongKindOfKey, parse_api_key

logger = logging.getLogger(__name__)

MAX_CACHED = 20_000


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that exists, and the digest that admission compares with the stored one."""

    api_key_id: UUID
    tenant_id: UUID
    digest: str = field(repr=False)


class Authenticator:
    def __init__(self, database: Database, secrets: SecretStore) -> None:
        self._database = database
        self._secrets = secrets
        self._cache: OrderedDict[str, Credential] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Credential]] = {}

    async def authenticate(self, authorization: bytes | None) -> Credential:
        """The credential of an Authorization header. Raises CallError 401, and 503 without a database.

        Whether the key is revoked, expired or its secret is right is decided where it matters: in the
        admission statement, or by `current_models`.
        """
        token = _bearer_token(authorization)
        known = self._cache.get(token)
        if known is not None:
            self._cache.move_to_end(token)
            return known
        # Hundreds of calls may come with a key that is new here; they share one question.
        asking = self._asking.get(token)
        if asking is None:
            asking = self._asking[token] = asyncio.ensure_future(self._find(token))
            asking.add_done_callback(partial(self._asked, token))
        return await asyncio.shield(asking)

    def _asked(self, token: str, asking: "asyncio.Future[Credential]") -> None:
        del self._asking[token]
        if not asking.cancelled():
            # Whoever waited for it may have left.
            asking.exception()

    async def _find(self, token: str) -> Credential:
        try:
            parsed = parse_api_key(token)
        except WrongKindOfKey:
            raise management_key() from None
        except MalformedApiKey:
            raise wrong_key() from None
        row = await self.look_up(lambda connection: _stored_key(connection, parsed.key_id))
        if row is None:
            raise wrong_key()
        tenant_id, pepper_number, stored = row
        try:
            digest = self._secrets.digest(pepper_number, parsed.secret).hex()
        except MissingSecret:
            raise wrong_key() from None
        if digest != stored:
            raise wrong_key()
        credential = Credential(parsed.key_id, tenant_id, digest)
        self._cache[token] = credential
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return credential

    async def current_models(self, credential: Credential) -> list[tuple[str, int]]:
        """Slugs and creation times (Unix seconds) of the models that this key may use now.

        Raises CallError when the key or its organization may do nothing.
        """
        return await self.look_up(lambda connection: _models_of(connection, credential))

    async def confirm(self, credential: Credential) -> None:
        """Raises CallError 401 when the key may read nothing now. Its organization may be suspended: it still
        sees where it stands."""
        if not await self.look_up(lambda connection: _is_live(connection, credential)):
            raise wrong_key()

    async def look_up(self, question: Callable[[AsyncConnection[Any]], Awaitable[ResultT]]) -> ResultT:
        """The answer to a question on a connection of the data plane. Raises CallError 503 when the database
        is away or does not answer, and what the question raises."""

        async def ask() -> ResultT:
            async with self._database.connection() as connection:
                return await question(connection)

        try:
            return await in_time(ask(), LOOK_UP_TIMEOUT_S)
        except psycopg.Error as error:
            logger.warning("inference.key.not_looked_up", extra={"reason": type(error).__name__})
            raise overloaded("The API key could not be looked up. Try again shortly.") from error


def _bearer_token(authorization: bytes | None) -> str:
    if authorization is None or len(authorization) > 512:
        raise wrong_key()
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise wrong_key()
    try:
        return token.strip().decode("ascii")
    except UnicodeDecodeError:
        raise wrong_key() from None


async def _stored_key(connection: AsyncConnection[Any], key_id: UUID) -> tuple[Any, ...] | None:
    cursor = await connection.execute(
        "SELECT tenant_id, pepper_number, encode(digest, 'hex') FROM tenants_apikey WHERE id = %s",
        (key_id,),
        prepare=True,
    )
    return await cursor.fetchone()


async def _is_live(connection: AsyncConnection[Any], credential: Credential) -> bool:
    cursor = await connection.execute(
        "SELECT encode(k.digest, 'hex') = %s AND (k.revoked_at IS NULL OR k.revoked_at > now()) "
        "AND (k.expires_at IS NULL OR k.expires_at > now()) FROM tenants_apikey k "
        "WHERE k.id = %s AND k.tenant_id = %s",
        (credential.digest, credential.api_key_id, credential.tenant_id),
        prepare=True,
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _models_of(connection: AsyncConnection[Any], credential: Credential) -> list[tuple[str, int]]:
    cursor = await connection.execute(
        """
        SELECT encode(k.digest, 'hex') = %(digest)s
                 AND (k.revoked_at IS NULL OR k.revoked_at > now())
                 AND (k.expires_at IS NULL OR k.expires_at > now()),
               t.state = 'ACTIVE', m.slug, extract(epoch FROM m.created_at)::bigint
        FROM tenants_apikey k
        JOIN tenants_tenant t ON t.id = k.tenant_id
        LEFT JOIN models_catalog_modelgrant g ON g.tenant_id = k.tenant_id AND g.ended_at IS NULL
          AND (NOT k.restricts_models OR EXISTS (
            SELECT 1 FROM models_catalog_apikeymodel a WHERE a.api_key_id = k.id AND a.model_id = g.model_id))
        LEFT JOIN models_catalog_catalogmodel m ON m.id = g.model_id AND m.state = 'ACTIVE'
        WHERE k.id = %(key)s AND k.tenant_id = %(tenant)s
        ORDER BY m.slug
        """,
        {"digest": credential.digest, "key": credential.api_key_id, "tenant": credential.tenant_id},
        prepare=True,
    )
    rows = await cursor.fetchall()
    if not rows or not rows[0][0]:
        raise wrong_key()
    if not rows[0][1]:
        raise suspended()
    return [(slug, created) for _, _, slug, created in rows if slug is not None]
