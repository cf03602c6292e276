"""Who is at the other end of a socket, asked of the database at each run and not remembered in between."""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.conf import settings

from portal.inference.credentials import Credential
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from portal.pages.access import Organization, find_organization
from portal.pages.sessions import session_and_user
from portal.pages.sockets import Refused
from tenants import operations as tenants
from tenants import queries
from tenants.models import User
from tenants.permissions import Permission
from tenants.scope import role_scope, tenant_scope

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

# Each thread keeps its connections, so few of them bound what the sockets take of the server's.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="playground")


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who may use the playground of an organization now."""

    organization: Organization
    credential: Credential | None = None


async def find_member(session_key: str | None, organization_id: str) -> Member | Refused:
    """Whether this session's person may use the organization's playground at this moment."""
    return await _in_thread(_find, session_key, organization_id)


async def find_payer(session_key: str | None, organization_id: str, secrets: SecretStore) -> Member | Refused:
    """The same with the key that the member's runs are billed to, made at the first use."""
    return await _in_thread(_find_payer, session_key, organization_id, secrets)


async def _in_thread(
    work: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
) -> ResultT:
    run: Callable[ParamsT, Awaitable[ResultT]] = database_sync_to_async(
        work, thread_sensitive=False, executor=_threads
    )
    return await run(*args, **kwargs)


def _find(session_key: str | None, organization_id: str) -> Member | Refused:
    found = session_and_user(session_key)
    if found is None or _owes_terms(found[1]):
        return Refused.SIGNED_OUT
    user = found[1]
    organization = find_organization(user.id, organization_id)
    if organization is None:
        return Refused.NOT_FOUND
    if not organization.may(Permission.USE_PLAYGROUND):
        return Refused.NOT_ALLOWED
    return Member(organization)


def _find_payer(session_key: str | None, organization_id: str, secrets: SecretStore) -> Member | Refused:
    found = _find(session_key, organization_id)
    if isinstance(found, Refused):
        return found
    organization = found.organization
    with tenant_scope(organization.tenant_id):
        key = tenants.playground_key(
            tenant_id=organization.tenant_id, user_id=organization.user_id, secrets=secrets, now=utc_now()
        )
    return Member(organization, Credential(key.id, organization.tenant_id, key.digest_hex))


def _owes_terms(user: User) -> bool:
    """Whether a page would ask for the new terms first: the way to sign in leads there."""
    with role_scope("auth"):
        return queries.owes_terms(user_id=user.id, version=settings.TERMS_VERSION)
