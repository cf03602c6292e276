"""Reads of bundles: the list, and the file of one, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from portal.kit.ids import PREFIXES, public_id
from quotas.models import OPEN_BUNDLE_STATES, BillBundle, BillBundlePart, BundleFailure, BundleState
from tenants.scope import tenant_scope


@dataclass(frozen=True, slots=True)
class BundleRow:
    """A bundle as it stands. percent: how far it is, below 100 until it is ready."""

    id: UUID
    currency: str
    from_at: datetime
    to_at: datetime
    state: BundleState
    failure: BundleFailure | None
    lines_done: int
    lines_expected: int
    created_at: datetime
    made_at: datetime | None
    complete_to: datetime | None
    charged_nanos: int | None
    size_bytes: int
    sha256: str
    key_id: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["bundle"], self.id)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_BUNDLE_STATES

    @property
    def is_ready(self) -> bool:
        return self.state == BundleState.READY

    @property
    def is_complete(self) -> bool:
        """Usage of the whole period was complete when it was made."""
        return self.complete_to is not None and self.complete_to >= self.to_at

    @property
    def percent(self) -> int:
        return min(99, self.lines_done * 100 // self.lines_expected) if self.lines_expected else 0


def list_bundles(*, tenant_id: UUID, limit: int = 50) -> tuple[BundleRow, ...]:
    """The newest first, in the organization's scope."""
    return tuple(
        _row(bundle) for bundle in BillBundle.objects.filter(tenant_id=tenant_id).order_by("-id")[:limit]
    )


def find_bundle(*, bundle_id: UUID) -> BundleRow | None:
    """In the organization's scope."""
    bundle = BillBundle.objects.filter(id=bundle_id).first()
    return None if bundle is None else _row(bundle)


def iter_bundle(*, tenant_id: UUID, bundle_id: UUID) -> Iterator[bytes]:
    """The file of a bundle that is ready. Each piece opens the organization's scope itself, so that a slow
    reader holds no transaction open."""
    ordinal = 0
    while True:
        with tenant_scope(tenant_id):
            content = (
                BillBundlePart.objects.filter(bundle_id=bundle_id, ordinal=ordinal)
                .values_list("content", flat=True)
                .first()
            )
        if content is None:
            return
        yield bytes(content)
        ordinal += 1


def _row(bundle: BillBundle) -> BundleRow:
    return BundleRow(
        id=bundle.id,
        currency=bundle.currency,
        from_at=bundle.from_at,
        to_at=bundle.to_at,
        state=BundleState(bundle.state),
        failure=BundleFailure(bundle.failure) if bundle.failure else None,
        lines_done=bundle.lines_done,
        lines_expected=bundle.lines_expected,
        created_at=bundle.created_at,
        made_at=bundle.made_at,
        complete_to=bundle.complete_to,
        charged_nanos=bundle.charged_nanos,
        size_bytes=bundle.size_bytes,
        sha256=bundle.sha256,
        key_id=bundle.key_id,
    )
