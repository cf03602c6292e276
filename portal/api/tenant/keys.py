"""API keys: as in the console, a secret is in one answer, once (and in its replays)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404
from rest_framework import serializers

from models_catalog import allow_lists
from models_catalog import operations as catalog_operations
from portal.api import problems
from portal.api.authentication import secret_store
from portal.api.endpoints import Answer, TenantCall, TenantEndpoint
from portal.api.fields import Labels, Moment, OneOf, Page, PublicId, Strict, Text, page_of
from portal.api.operations import operation
from portal.api.paging import identifier, moment, page_json
from portal.pages.access import parse_id
from quotas.metering import queries as metering_queries
from tenants import operations, queries
from tenants.models import ManagementScope
from tenants.operations import MAX_LABELS
from tenants.permissions import Permission
from tenants.queries import KeyRow, KeyState

SLUG = r"^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._:-]*$"
_EXAMPLE = {
    "id": "key_01k9zq5v3nf2t8x4m6r7w0y1ab",
    "name": "nightly batch",
    "state": "ACTIVE",
    "hint": "slc_…9f2k",
    "labels": {"team": "search"},
    "models": ["qwen/qwen3-8b"],
    "created_at": "2026-11-01T08:00:00Z",
    "created_by": "dev@example.com",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}


class KeyListParameters(Page):
    state = OneOf(
        choices=["live", "ended"], required=False, help_text="Only those in use, or only ended ones."
    )


class ApiKeyAnswer(serializers.Serializer[Any]):
    """An API key, without anything of its secret but the last characters."""

    id = PublicId(kind="api_key")
    name = serializers.CharField()
    state = serializers.ChoiceField(
        choices=[state.value for state in KeyState], help_text="A replaced key works until it expires."
    )
    hint = serializers.CharField(source="masked")
    labels = serializers.DictField(child=serializers.CharField(allow_blank=True))
    models = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="null: every model that is enabled."
    )
    created_at = Moment()
    created_by = serializers.CharField(
        source="created_by_email", allow_blank=True, help_text="Empty when they are no member any more."
    )
    expires_at = Moment(allow_null=True)
    revoked_at = Moment(allow_null=True)
    last_used_at = Moment(allow_null=True, help_text="When a call with it was last admitted.")


ApiKeyPage = page_of(ApiKeyAnswer, "ApiKeyPage")


class IssuedKeyAnswer(serializers.Serializer[Any]):
    """A new key. `secret` is the whole token, and is not shown again."""

    key = ApiKeyAnswer()
    secret = serializers.CharField(help_text="`slc_…`, what programs send to /v1.")


class _Models(serializers.ListField):
    child = Text(max_length=120)


class NewKeyBody(Strict):
    name = Text(max_length=100, help_text="What uses it.")
    labels = Labels(
        required=False, help_text=f"At most {MAX_LABELS}; names and values of at most 64 characters."
    )
    expires_at = Moment(required=False, allow_null=True, help_text="Left out or null: never.")
    models = _Models(
        required=False,
        allow_null=True,
        max_length=200,
        help_text="The only models that it may use; left out or null: all that are enabled.",
    )


class KeyChangesBody(Strict):
    """What is left out stays as it is."""

    name = Text(max_length=100, required=False)
    labels = Labels(required=False)
    models = _Models(required=False, allow_null=True, max_length=200, help_text="null: all that are enabled.")


_KEY = {"key": "api_key"}
_RAISES = {
    operations.KeyNotFound: problems.NOT_FOUND,
    operations.InvalidKeyOptions: problems.REFUSED,
    operations.TooManyKeys: problems.LIMIT_REACHED,
    catalog_operations.ModelNotFound: problems.REFUSED,
}


class KeyList(TenantEndpoint):
    @operation(
        id="listKeys",
        summary="List API keys",
        tag="keys",
        action="api_key.list",
        scope=ManagementScope.KEYS_READ,
        permission=Permission.SEE_KEYS,
        parameters=KeyListParameters,
        answer=ApiKeyPage,
        answer_example={"data": [_EXAMPLE], "next_cursor": None},
    )
    def get(self, call: TenantCall) -> Answer:
        """API keys, newest first. Keys of the playground are nobody's to manage, and not among them."""
        listing = call.listing
        state = listing.filters.get("state")
        rows = [
            row
            for row in queries.list_api_keys(tenant_id=call.tenant_id, now=call.now)
            if state is None or row.is_live == (state == "live")
        ]
        if listing.place is not None:
            after = (moment(listing.place[0]), identifier(listing.place[1]))
            rows = [row for row in rows if (row.created_at, row.id) < after]
        shown = rows[: listing.limit]
        following = listing.cursor(shown[-1].created_at, shown[-1].id) if len(rows) > len(shown) else None
        return Answer(page_json(_shown(call, shown), following))

    @operation(
        id="createKey",
        summary="Create an API key",
        tag="keys",
        action="api_key.create",
        scope=ManagementScope.KEYS_WRITE,
        permission=Permission.MANAGE_KEYS,
        body=NewKeyBody,
        answer=IssuedKeyAnswer,
        status=201,
        raises=_RAISES,
        body_example={"name": "nightly batch", "labels": {"team": "search"}, "models": ["qwen/qwen3-8b"]},
        answer_example={"key": _EXAMPLE, "secret": "slc_01k9zq5v3nf2t8x4m6r7w0y1ab_…9f2k"},
    )
    def post(self, call: TenantCall) -> Answer:
        """A new key. Its secret is in this answer only; with an `Idempotency-Key` a lost answer can be asked
        for again."""
        issued = catalog_operations.issue_api_key(
            tenant_id=call.tenant_id,
            name=call.body["name"],
            secrets=secret_store(),
            now=call.now,
            labels=call.body.get("labels", {}),
            expires_at=call.body.get("expires_at"),
            slugs=call.body.get("models"),
            created_by_id=call.caller.user_id,
        )
        return _issued(call, issued)


class KeyDetail(TenantEndpoint):
    @operation(
        id="getKey",
        summary="Read an API key",
        tag="keys",
        action="api_key.read",
        scope=ManagementScope.KEYS_READ,
        permission=Permission.SEE_KEYS,
        parts=_KEY,
        answer=ApiKeyAnswer,
        answer_example=_EXAMPLE,
    )
    def get(self, call: TenantCall, key: str) -> Answer:
        """One key, whatever its state."""
        return Answer(_one(call, parse_id("api_key", key)))

    @operation(
        id="changeKey",
        summary="Change an API key",
        tag="keys",
        action="api_key.change",
        scope=ManagementScope.KEYS_WRITE,
        permission=Permission.MANAGE_KEYS,
        parts=_KEY,
        body=KeyChangesBody,
        answer=ApiKeyAnswer,
        raises=_RAISES,
        body_example={"name": "nightly batch, second try", "models": None},
        answer_example={**_EXAMPLE, "name": "nightly batch, second try", "models": None},
    )
    def patch(self, call: TenantCall, key: str) -> Answer:
        """Name, labels and models of a key; the secret stays. Ended keys cannot be changed."""
        row = _row(call, parse_id("api_key", key))
        if "models" in call.body:
            catalog_operations.change_api_key(
                tenant_id=call.tenant_id,
                key_id=row.id,
                name=call.body.get("name", row.name),
                labels=call.body.get("labels", row.labels),
                slugs=call.body["models"],
            )
        else:
            # Its list may name models that are no longer offered, so it is not written again.
            operations.update_api_key(
                tenant_id=call.tenant_id,
                key_id=row.id,
                name=call.body.get("name"),
                labels=call.body.get("labels"),
            )
        return Answer(_one(call, row.id))


class KeyRotation(TenantEndpoint):
    @operation(
        id="rotateKey",
        summary="Rotate an API key",
        tag="keys",
        action="api_key.rotate",
        scope=ManagementScope.KEYS_WRITE,
        permission=Permission.MANAGE_KEYS,
        parts=_KEY,
        answer=IssuedKeyAnswer,
        status=201,
        raises=_RAISES,
        answer_example={"key": _EXAMPLE, "secret": "slc_01k9zq5v3nf2t8x4m6r7w0y1ab_…9f2k"},
    )
    def post(self, call: TenantCall, key: str) -> Answer:
        """A successor with the same options. The old key goes on for the installation's overlap, a day
        unless set otherwise; a key can be rotated once."""
        issued = catalog_operations.rotate_api_key(
            tenant_id=call.tenant_id,
            key_id=parse_id("api_key", key),
            secrets=secret_store(),
            now=call.now,
            overlap_s=settings.TUNING["SLUICE_KEY_OVERLAP_S"],
            created_by_id=call.caller.user_id,
        )
        return _issued(call, issued)


class KeyRevocation(TenantEndpoint):
    @operation(
        id="revokeKey",
        summary="Revoke an API key",
        tag="keys",
        action="api_key.revoke",
        scope=ManagementScope.KEYS_WRITE,
        permission=Permission.MANAGE_KEYS,
        parts=_KEY,
        answer=ApiKeyAnswer,
        raises=_RAISES,
        answer_example={**_EXAMPLE, "state": "REVOKED", "revoked_at": "2026-11-02T08:00:00Z"},
    )
    def post(self, call: TenantCall, key: str) -> Answer:
        """End a key: its next call is refused, for good. Revoking it again changes nothing."""
        row = _row(call, parse_id("api_key", key))
        operations.revoke_api_key(tenant_id=call.tenant_id, key_id=row.id, now=call.now)
        return Answer(_one(call, row.id))


def _row(call: TenantCall, key_id: UUID) -> KeyRow:
    """Raises Http404."""
    row = queries.find_api_key(tenant_id=call.tenant_id, key_id=key_id, now=call.now)
    if row is None:
        raise Http404
    return row


def _one(call: TenantCall, key_id: UUID) -> Any:
    return _shown(call, [_row(call, key_id)])[0]


def _issued(call: TenantCall, issued: operations.IssuedKey) -> Answer:
    return Answer({"key": _one(call, issued.id), "secret": issued.token}, status=201)


def _shown(call: TenantCall, rows: Sequence[KeyRow]) -> list[Any]:
    listed = allow_lists.models_of_keys(tenant_id=call.tenant_id, key_ids=[row.id for row in rows])
    used = metering_queries.last_used(tenant_id=call.tenant_id)
    return [
        ApiKeyAnswer(
            {
                **{name: getattr(row, name) for name in _COPIED},
                "models": list(listed.get(row.id, ())) if row.restricts_models else None,
                "last_used_at": used.get(row.id),
            }
        ).data
        for row in rows
    ]


_COPIED = (
    "id",
    "name",
    "state",
    "masked",
    "labels",
    "created_at",
    "created_by_email",
    "expires_at",
    "revoked_at",
)
