"""Transfer references: `SL7K-4M2Q-88`, short, without signs that people mix up.

The last two digits check the rest as those of an ISO 11649 reference do (modulo 97), but each sign counts as
one digit of base 36: every wrong sign and every swap of two neighbours is noticed, whatever they are.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import BankReference
from quotas.models.bank import REFERENCE_PATTERN
from tenants.operations import audit
from tenants.scope import scope_alias

LEAD: Final = "SL"
SIGNS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_SIGNS: Final = 6
MAX_TRIES: Final = 5
# In what a payer or a bank made of it: lower case, other dashes or spaces between, words around.
_IN_TEXT: Final = re.compile(
    rf"(?<![0-9A-Z])S[^0-9A-Z]*L(?:[^0-9A-Z]*[{SIGNS}]){{6}}(?:[^0-9A-Z]*[0-9]){{2}}(?![0-9A-Z])"
)
_SPELLED: Final = re.compile(REFERENCE_PATTERN)


def spell_reference(signs: str) -> str:
    """The reference with these six signs: with its lead, its two check digits and dashes."""
    body = LEAD + signs
    check = 98 - int(body, 36) * 100 % 97
    return f"{body[:4]}-{body[4:]}-{check:02d}"


def is_reference(text: str) -> bool:
    """Whether it is spelled like one and its digits check."""
    if _SPELLED.match(text) is None:
        return False
    body, check = text[:-2].replace("-", ""), text[-2:]
    return (int(body, 36) * 100 + int(check)) % 97 == 1


def find_references(text: str) -> list[str]:
    """The references that a text holds, such as a line of a bank's statement; each once, as it is spelled."""
    found: dict[str, None] = {}
    for match in _IN_TEXT.finditer(text.upper()):
        signs = re.sub(r"[^0-9A-Z]", "", match[0])
        spelled = f"{signs[:4]}-{signs[4:8]}-{signs[8:]}"
        if is_reference(spelled):
            found[spelled] = None
    return list(found)


def make_reference(*, tenant_id: UUID, actor: audit.Actor, now: datetime) -> str:
    """The organization's transfer reference, made when it is asked for first. In the tenant's scope."""
    if actor.user_id is None:
        raise ValueError("a member asks for a reference")
    for _ in range(MAX_TRIES):
        known = BankReference.objects.filter(tenant_id=tenant_id).first()
        if known is not None:
            return known.reference
        reference = spell_reference("".join(secrets.choice(SIGNS) for _ in range(RANDOM_SIGNS)))
        try:
            with transaction.atomic(using=scope_alias()):
                BankReference.objects.create(
                    reference=reference, tenant_id=tenant_id, created_by_id=actor.user_id, created_at=now
                )
        except IntegrityError:
            # Somebody else's, or a colleague was faster.
            continue
        audit.record(
            actor=actor,
            action="bank.reference",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
            after={"reference": reference},
        )
        return reference
    raise RuntimeError("no free transfer reference was found")
