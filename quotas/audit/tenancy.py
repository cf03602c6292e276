"""I13: the statement that compares tenants along foreign keys, made from the foreign keys there are."""

from typing import Final

from django.db.backends.utils import CursorWrapper

# Foreign keys between two tables of which both carry a tenant. Those of partitions repeat their parents', or,
# where each day's partition has one of its own, say together what one of the parents would.
_FOREIGN_KEYS: Final = """
SELECT DISTINCT k.child, k.parent, k.child_columns, k.parent_columns
FROM (
SELECT coalesce(child_of.inhparent, c.conrelid)::regclass::text AS child,
  coalesce(parent_of.inhparent, c.confrelid)::regclass::text AS parent,
  array_agg(quote_ident(child.attname) ORDER BY k.position) AS child_columns,
  array_agg(quote_ident(parent.attname) ORDER BY k.position) AS parent_columns
FROM pg_catalog.pg_constraint c
LEFT JOIN pg_catalog.pg_inherits child_of ON child_of.inhrelid = c.conrelid
LEFT JOIN pg_catalog.pg_inherits parent_of ON parent_of.inhrelid = c.confrelid
CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k(child, parent, position)
JOIN pg_catalog.pg_attribute child ON child.attrelid = c.conrelid AND child.attnum = k.child
JOIN pg_catalog.pg_attribute parent ON parent.attrelid = c.confrelid AND parent.attnum = k.parent
WHERE c.contype = 'f' AND c.conparentid = 0
  AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.conrelid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
  AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.confrelid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
GROUP BY c.oid, c.conrelid, c.confrelid, child_of.inhparent, parent_of.inhparent
) k
ORDER BY 1, 2, 3, 4
"""

# How a row of a table is named to people; the rows of all others by their organization.
_PUBLIC_IDS: Final = {
    "quotas_inferencerequest": ("request", "id"),
    "quotas_attempt": ("attempt", "id"),
    "quotas_hold": ("request", "request_id"),
    "quotas_usagerecord": ("request", "request_id"),
    "quotas_ledgertransfer": ("transfer", "id"),
    "quotas_ledgerentry": ("transfer", "transfer_id"),
    "tenants_apikey": ("api_key", "id"),
}

# What the foreign keys cannot say: an attempt belongs to the tenant of its call (a trigger holds that), a leg
# to the tenant of its account, or to nobody when that is one of the house's; and transfers name requests
# without a foreign key.
_BEYOND_FOREIGN_KEYS: Final = """
SELECT 'attempt', a.id FROM quotas_attempt a LEFT JOIN quotas_inferencerequest q ON q.id = a.request_id
WHERE a.tenant_id IS DISTINCT FROM q.tenant_id
UNION ALL
SELECT 'transfer', e.transfer_id FROM quotas_ledgerentry e JOIN quotas_ledgeraccount a ON a.id = e.account_id
WHERE e.tenant_id IS DISTINCT FROM a.tenant_id
UNION ALL
SELECT 'transfer', t.id FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
WHERE e.tenant_id IS NOT NULL AND e.tenant_id IS DISTINCT FROM t.tenant_id
UNION ALL
SELECT 'transfer', t.id FROM quotas_ledgertransfer t
LEFT JOIN quotas_inferencerequest q ON q.id = t.request_id
WHERE t.request_id IS NOT NULL AND t.tenant_id IS DISTINCT FROM q.tenant_id
"""


def tenancy_violations(cursor: CursorWrapper) -> str:
    """A query of (what, id) for every row whose tenant differs from the tenant of a row it points to.

    A row that belongs to nobody, such as a list price or a leg of a house account, agrees with all.
    """
    cursor.execute(_FOREIGN_KEYS)
    return "\nUNION ALL\n".join(
        [_BEYOND_FOREIGN_KEYS, *(_comparison(*foreign_key) for foreign_key in cursor.fetchall())]
    )


def _comparison(child: str, parent: str, child_columns: list[str], parent_columns: list[str]) -> str:
    what, column = _PUBLIC_IDS.get(child, ("organization", "tenant_id"))
    on = " AND ".join(
        f"parent.{theirs} = child.{ours}"
        for ours, theirs in zip(child_columns, parent_columns, strict=True)
        # Where the key names the tenants itself, it is the other columns that find the row.
        if not (ours == theirs == "tenant_id")
    )
    return (
        f"SELECT '{what}', child.{column} FROM {child} AS child JOIN {parent} AS parent ON {on or 'false'} "  # noqa: S608
        "WHERE child.tenant_id <> parent.tenant_id"
    )
