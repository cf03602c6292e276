"""Terms: who accepted which version."""

from uuid import UUID

from tenants.models import TermsAcceptance


def accept_terms(*, user_id: UUID, version: str, tenant_id: UUID | None = None) -> None:
    """Note that a person accepts this version of the terms; the first time counts, again changes nothing.

    tenant_id: the organization that is opened with it. Works under the auth and operator roles.
    """
    TermsAcceptance.objects.bulk_create(
        [TermsAcceptance(user_id=user_id, version=version, tenant_id=tenant_id)], ignore_conflicts=True
    )
