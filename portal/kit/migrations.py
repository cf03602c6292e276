"""Migration operations that the tenant walls, partitions and SQL functions of the house need."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# What the scope of a transaction says; an absent or empty setting matches no row.
CURRENT_TENANT = "NULLIF((SELECT current_setting('app.tenant_id', true)), '')::uuid"

CROSSING_ROLES = ("operator", "auth", "dataplane")


class LockTimeout(migrations.RunSQL):
    """First operation of every migration: waiting for a lock longer than this fails the migration,
    instead of queueing the whole product behind it."""

    def __init__(self, timeout_ms: int = 4000) -> None:
        super().__init__(f"SET LOCAL lock_timeout = '{int(timeout_ms)}ms'", migrations.RunSQL.noop)

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        return (self.__class__.__qualname__, [], {})


class CreatePartitionedModel(migrations.CreateModel):
    """CreateModel whose table is partitioned by range of one column."""

    def __init__(self, *args: Any, partition_by: str, **kwargs: Any) -> None:
        self.partition_by = partition_by
        super().__init__(*args, **kwargs)

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        plain = schema_editor.sql_create_table
        schema_editor.sql_create_table = f"{plain} PARTITION BY RANGE ({self.partition_by})"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.sql_create_table = plain


def run_sql_file(path: Path) -> migrations.RunSQL:
    """A RunSQL of a file beside the code that calls its functions. There is no way back from it: what the
    file made would stay, ask for tables that are gone, and stop the way forward."""
    return migrations.RunSQL(path.read_text(encoding="utf-8"))


def composite_foreign_key(table: str, columns: str, target: str, target_columns: str) -> migrations.RunSQL:
    """A foreign key of several columns, which Django cannot express: with the tenant among them the
    database itself guarantees that a row and what it points to belong to the same tenant."""
    name = f"{table}_{columns.replace(', ', '_')}_fk"[:63]
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({columns}) "
        f"REFERENCES {target} ({target_columns})",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


def tenant_wall(
    table: str, *, tenant_column: str = "tenant_id", crossing: Sequence[str] = CROSSING_ROLES
) -> migrations.RunSQL:
    """Row-level security of a tenant-owned table, for every role including the table's owner.

    The tenant role sees the rows of the scope's tenant; the roles in `crossing` see all rows, as far
    as their grants go; the owner, who runs migrations, sees all.
    """
    statements = [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_wall ON {table} FOR ALL TO sluice_tenant "
        f"USING ({tenant_column} = {CURRENT_TENANT}) WITH CHECK ({tenant_column} = {CURRENT_TENANT})",
        f"CREATE POLICY owner_all ON {table} FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true)",
    ]
    statements += [
        f"CREATE POLICY {role}_all ON {table} FOR ALL TO sluice_{role} USING (true) WITH CHECK (true)"
        for role in crossing
    ]
    return migrations.RunSQL(";\n".join(statements), migrations.RunSQL.noop)


def grant(privileges: str, tables: str | Sequence[str], *roles: str) -> migrations.RunSQL:
    """GRANT privileges ON tables TO the roles of the house (named without their prefix)."""
    names = tables if isinstance(tables, str) else ", ".join(tables)
    to = ", ".join(f"sluice_{role}" for role in roles)
    return migrations.RunSQL(f"GRANT {privileges} ON {names} TO {to}", migrations.RunSQL.noop)


def revoke(privileges: str, tables: str | Sequence[str], *roles: str) -> migrations.RunSQL:
    """REVOKE what an earlier migration granted, as `grant` names it."""
    names = tables if isinstance(tables, str) else ", ".join(tables)
    from_roles = ", ".join(f"sluice_{role}" for role in roles)
    return migrations.RunSQL(f"REVOKE {privileges} ON {names} FROM {from_roles}", migrations.RunSQL.noop)


def grant_function(signature: str, *roles: str) -> migrations.RunSQL:
    to = ", ".join(f"sluice_{role}" for role in roles)
    return migrations.RunSQL(
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC; GRANT EXECUTE ON FUNCTION {signature} TO {to}",
        migrations.RunSQL.noop,
    )
