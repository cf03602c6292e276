"""The second wall: what PostgreSQL itself shows to a role, whatever the code above it forgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from portal.kit.ids import uuid7
from quotas.tests.doors import admit
from tests.database import connected
from tests.factories import (
    admission_row,
    make_model,
)
from tests.isolation.populated import Populated, populate

Connection = psycopg.Connection[Any]

PRODUCT_ROLES = ("tenant", "operator", "auth", "dataplane", "ingest")

# Functions that run with the owner's rights. Each addition is a hole in the walls: think twice.
DEFINER_FUNCTIONS = {
    "catalog_energy_costs()",
    "quotas_apply_entries()",
    "quotas_apply_new_holds()",
    "quotas_apply_resolved_holds()",
    "quotas_confirmed(uuid[])",
    "quotas_make_partitions(integer)",
    "quotas_raise_limit_revision()",
    "tenants_cap_invitations()",
    "tenants_cap_mail()",
}

# Tables of which no organization sees anything, its own rows neither: mails let people in, what people
# agreed to is between them and us, and so are what a customer costs, our bank's statement, and what backends
# and we do not agree about yet.
HIDDEN_FROM_TENANTS = {
    "quotas_bankreceipt",
    "quotas_businesshour",
    "quotas_creditorder",
    "quotas_discrepancy",
    "tenants_outboxmessage",
    "tenants_tenantnote",
    "tenants_termsacceptance",
}

# All that the role may touch which takes the backends' records in: never what was asked or what it cost,
# nobody's money and nobody's name.
INGEST_TABLES = {
    "models_catalog_deployment": {"SELECT"},
    "models_catalog_usagefeed": {"SELECT"},
    "quotas_controlwindow": {"SELECT"},
    "quotas_countersample": {"SELECT"},
    "quotas_discrepancy": {"SELECT", "INSERT"},
    "quotas_feedfile": {"SELECT", "INSERT", "UPDATE"},
    "quotas_feedquarantine": {"SELECT", "INSERT", "UPDATE"},
    "quotas_feedrecord": {"SELECT", "INSERT"},
    "quotas_feedstate": {"SELECT", "INSERT", "UPDATE"},
    "quotas_suspenseitem": {"SELECT", "INSERT"},
}
INGEST_COLUMNS = {
    ("models_catalog_servingbackend", "SELECT"): {"id", "code", "engine", "state"},
    ("quotas_attempt", "SELECT"): {
        "id",
        "request_id",
        "tenant_id",
        "deployment_id",
        "choice_index",
        "started_at",
        "ended_at",
        "outcome",
        "prompt_tokens",
        "completion_tokens",
    },
    ("quotas_discrepancy", "UPDATE"): {
        "state",
        "event_at",
        "gateway_prompt_tokens",
        "gateway_cached_tokens",
        "gateway_completion_tokens",
        "gateway_reasoning_tokens",
        "feed_prompt_tokens",
        "feed_cached_tokens",
        "feed_completion_tokens",
        "feed_reasoning_tokens",
        "feed_finish",
        "is_late",
        "revision",
        "resolved_at",
        "reason",
    },
    ("quotas_feedrecord", "UPDATE"): {"verdict", "is_late"},
    ("quotas_hold", "SELECT"): {"request_id", "tenant_id", "state", "resolved_by"},
    ("quotas_inferencerequest", "SELECT"): {"id", "tenant_id", "choices", "endpoint", "admitted_at"},
    ("quotas_usagerecord", "SELECT"): {
        "request_id",
        "revision",
        "tenant_id",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "basis",
        "source",
    },
}

# Tables that carry a tenant but show rows that belong to nobody, such as list prices, to everybody.
SHOW_PUBLIC_ROWS = {"models_catalog_priceversion"}


@pytest.fixture(scope="module")
def two(database: None) -> Populated:
    return populate()


@pytest.fixture
def tenant_role(database: None) -> Iterator[Connection]:
    """One connection as the tenant role, as a pool would hand it out; transactions are opened in tests."""
    with connected("tenant") as connection:
        yield connection


@pytest.fixture(scope="module")
def owner(database: None) -> Iterator[Connection]:
    with connected("owner") as connection:
        yield connection


def tenant_tables(owner: Connection) -> list[str]:
    """Every table with a tenant_id column, partitions aside, and the table of the tenants themselves."""
    rows = owner.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition "
        "AND a.attname = 'tenant_id' AND NOT a.attisdropped ORDER BY 1"
    ).fetchall()
    return ["tenants_tenant", *(name for (name,) in rows)]


def visible_tables(owner: Connection) -> list[str]:
    """Those of them of which an organization sees its own rows."""
    return [table for table in tenant_tables(owner) if table not in HIDDEN_FROM_TENANTS]


def partitions(owner: Connection) -> list[str]:
    return [
        name
        for (name,) in owner.execute(
            "SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p') "
            "AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
    ]


def enter(connection: Connection, tenant_id: UUID | str) -> None:
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant_id),))


def execute_as(connection: Connection, tenant_id: UUID | str, statement: str, *params: Any) -> None:
    """One transaction of an organization's scope with one statement in it."""
    with connection.transaction():
        enter(connection, tenant_id)
        connection.execute(statement, params)


def count(connection: Connection, table: str, where: LiteralString = "true", *params: Any) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE ").format(sql.Identifier(table)) + sql.SQL(where), params
    ).fetchone()
    assert row is not None
    return int(row[0])


def tenant_column(table: str) -> LiteralString:
    return "id" if table == "tenants_tenant" else "tenant_id"


def assert_sees_nothing(connection: Connection, tables: list[str]) -> None:
    for table in tables:
        assert count(connection, table, f"{tenant_column(table)} IS NOT NULL") == 0, table


# --- Rows ------------------------------------------------------------------------------------------


def test_the_tables_that_a_tenant_owns_are_the_ones_known_here(two: Populated, owner: Connection) -> None:
    """Both organizations have rows in each, so that what the other tests do not see is really there."""
    for table in tenant_tables(owner):
        for tenant in (two.mine, two.theirs):
            assert count(owner, table, f"{tenant_column(table)} = %s", tenant.id) > 0, table


def test_without_a_scope_nothing_is_seen(two: Populated, owner: Connection, tenant_role: Connection) -> None:
    tables = visible_tables(owner)
    assert_sees_nothing(tenant_role, tables)
    for empty in ("", str(uuid7())):
        with tenant_role.transaction():
            enter(tenant_role, empty)
            assert_sees_nothing(tenant_role, tables)
    for table in set(tables) - SHOW_PUBLIC_ROWS:
        assert count(tenant_role, table) == 0, table
    assert count(tenant_role, "tenants_user") == 0


def test_a_scope_that_is_no_id_is_an_error(two: Populated, tenant_role: Connection) -> None:
    for wrong in ("x", f"{two.mine.id}' OR true"):
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            execute_as(tenant_role, wrong, "SELECT 1 FROM quotas_wallet")


def test_in_a_scope_only_its_own_rows_are_seen(
    two: Populated, owner: Connection, tenant_role: Connection
) -> None:
    with tenant_role.transaction():
        enter(tenant_role, two.mine.id)
        for table in visible_tables(owner):
            column = tenant_column(table)
            assert count(tenant_role, table, f"{column} = %s", two.mine.id) > 0, table
            assert count(tenant_role, table, f"{column} <> %s", two.mine.id) == 0, table
        assert count(tenant_role, "tenants_user") == 1


def test_a_scope_ends_with_its_transaction(
    two: Populated, owner: Connection, tenant_role: Connection
) -> None:
    """The same connection serves one organization, nobody, an error, and then another organization."""
    tables = visible_tables(owner)
    backend = tenant_role.info.backend_pid
    with tenant_role.transaction():
        enter(tenant_role, two.mine.id)
        assert count(tenant_role, "quotas_wallet") == 1
    assert_sees_nothing(tenant_role, tables)
    with pytest.raises(psycopg.errors.DivisionByZero):
        execute_as(tenant_role, two.mine.id, "SELECT 1 / 0")
    assert_sees_nothing(tenant_role, tables)
    with tenant_role.transaction():
        enter(tenant_role, two.theirs.id)
        wallets = tenant_role.execute("SELECT tenant_id FROM quotas_wallet").fetchall()
        assert wallets == [(two.theirs.id,)]
    assert_sees_nothing(tenant_role, tables)
    assert tenant_role.info.backend_pid == backend


def test_hidden_tables_are_closed_to_tenants(
    two: Populated, owner: Connection, tenant_role: Connection
) -> None:
    assert set(tenant_tables(owner)) >= HIDDEN_FROM_TENANTS
    for table in HIDDEN_FROM_TENANTS:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
            execute_as(tenant_role, two.mine.id, f"SELECT 1 FROM {table}")


def test_private_prices_are_seen_by_their_tenant_only(two: Populated, tenant_role: Connection) -> None:
    with tenant_role.transaction():
        enter(tenant_role, two.mine.id)
        versions = tenant_role.execute(
            "SELECT tenant_id FROM models_catalog_priceversion WHERE model_id = %s", (two.model.id,)
        ).fetchall()
        lines = tenant_role.execute(
            "SELECT count(DISTINCT l.version_id) FROM models_catalog_priceline l "
            "JOIN models_catalog_priceversion v ON v.id = l.version_id WHERE v.model_id = %s",
            (two.model.id,),
        ).fetchone()
    assert {tenant_id for (tenant_id,) in versions} == {None, two.mine.id}
    assert lines == (2,)


def test_nothing_is_written_for_another_tenant(two: Populated, tenant_role: Connection) -> None:
    with tenant_role.transaction():
        enter(tenant_role, two.mine.id)
        for change in (
            "UPDATE tenants_tenant SET name = 'taken over' WHERE id = %s",
            "UPDATE tenants_apikey SET revoked_at = now() WHERE tenant_id = %s",
            "UPDATE models_catalog_modelgrant SET ended_at = now() WHERE tenant_id = %s",
            "UPDATE tenants_membership SET role = 'OWNER' WHERE tenant_id = %s",
            "DELETE FROM tenants_membership WHERE tenant_id = %s",
            "DELETE FROM models_catalog_apikeymodel WHERE tenant_id = %s",
            "UPDATE tenants_invitation SET revoked_at = now() WHERE tenant_id = %s",
            "UPDATE quotas_limit SET ends_at = now() WHERE tenant_id = %s",
        ):
            assert tenant_role.execute(change, (two.theirs.id,)).rowcount == 0, change
    insert = (
        "INSERT INTO models_catalog_modelgrant (id, tenant_id, model_id) SELECT %s, %s, id "
        "FROM models_catalog_catalogmodel WHERE id = %s"
    )
    other_model = make_model()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        execute_as(tenant_role, two.mine.id, insert, uuid7(), two.theirs.id, other_model.id)
    move = "UPDATE tenants_membership SET tenant_id = %s"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        execute_as(tenant_role, two.mine.id, move, two.theirs.id)


# --- Partitions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", PRODUCT_ROLES)
def test_partitions_cannot_be_read_directly(role: str, two: Populated, owner: Connection) -> None:
    """A parent's policy does not cover its partitions, so nobody has any right on those."""
    names = partitions(owner)
    assert len(names) >= 4 * 9
    with connected(role) as connection:
        for name in names:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                execute_as(connection, two.mine.id, f"SELECT 1 FROM {name}")


def test_partitions_have_no_grants(owner: Connection) -> None:
    granted = owner.execute(
        "SELECT c.relname, a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a "
        "WHERE c.relispartition AND a.grantee <> c.relowner"
    ).fetchall()
    assert granted == []


# --- The walls themselves --------------------------------------------------------------------------


def test_every_table_of_a_tenant_is_walled(owner: Connection) -> None:
    walls = dict(
        owner.execute(
            "SELECT c.relname::text, (c.relrowsecurity, c.relforcerowsecurity, "
            "EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant_wall' "
            "AND 'sluice_tenant'::regrole = ANY (p.polroles)))::text "
            "FROM pg_class c WHERE c.relname = ANY (%s)",
            (tenant_tables(owner),),
        ).fetchall()
    )
    assert {table for table, wall in walls.items() if wall != "(t,t,t)"} == set()
    assert len(walls) == len(tenant_tables(owner)) > 10


def test_policies_name_their_roles_and_ask_for_the_scope(owner: Connection) -> None:
    policies = owner.execute(
        "SELECT tablename, policyname, roles::text[], qual FROM pg_policies WHERE schemaname = 'public'"
    ).fetchall()
    assert [policy for policy in policies if "public" in policy[2]] == []
    for table, name, roles, condition in policies:
        if "sluice_tenant" in roles:
            assert name == "tenant_wall", table
            assert "app.tenant_id" in condition or "EXISTS" in condition, table


def test_no_role_of_the_product_can_climb_the_walls(owner: Connection) -> None:
    names = [f"sluice_{role}" for role in PRODUCT_ROLES]
    mighty = owner.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) "
        "AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)",
        (names,),
    ).fetchall()
    members = owner.execute(
        "SELECT member::regrole, roleid::regrole FROM pg_auth_members WHERE member::regrole::text = ANY (%s)",
        (names,),
    ).fetchall()
    owners = owner.execute(
        "SELECT relname FROM pg_class WHERE relowner::regrole::text = ANY (%s)", (names,)
    ).fetchall()
    assert (mighty, members, owners) == ([], [], [])


def test_functions_with_the_owners_rights_are_known_and_pinned(owner: Connection) -> None:
    functions = owner.execute(
        "SELECT p.oid::regprocedure::text, coalesce(array_to_string(p.proconfig, ';'), ''), "
        "has_function_privilege('public', p.oid, 'EXECUTE') FROM pg_proc p "
        "WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
    ).fetchall()
    assert {name for name, _, _ in functions} == DEFINER_FUNCTIONS
    for name, options, is_public in functions:
        # Unless it stands last, the temporary schema comes first: anybody's table of the same name.
        assert "search_path=pg_catalog, public, pg_temp" in options.split(";"), name
        assert not is_public, name


def test_a_temporary_table_does_not_stand_in_for_a_wallet(two: Populated) -> None:
    """The triggers run as the owner; a caller's own table of the same name must not catch their update."""
    with connected("dataplane", autocommit=False) as connection:
        connection.execute("CREATE TEMP TABLE quotas_wallet (LIKE public.quotas_wallet)")
        connection.execute("GRANT ALL ON quotas_wallet TO PUBLIC")
        connection.execute("SET search_path = public, pg_temp")
        before = connection.execute(
            "SELECT pending_nanos FROM public.quotas_wallet WHERE tenant_id = %s", (two.mine.id,)
        ).fetchone()
        row = admission_row(two.mine, two.model)
        admit(connection, row)
        after = connection.execute(
            "SELECT pending_nanos FROM public.quotas_wallet WHERE tenant_id = %s", (two.mine.id,)
        ).fetchone()
    assert before is not None
    assert after is not None
    assert after[0] == before[0] + 300_002


def test_roles_without_a_reason_have_no_rights(owner: Connection) -> None:
    """The ingest role takes records in and compares them, and nobody may create in the schema."""
    rights = owner.execute(
        "SELECT c.relname, '', a.privilege_type FROM pg_class c, aclexplode(c.relacl) a "
        "WHERE a.grantee IN (0, 'sluice_ingest'::regrole) AND c.relnamespace = 'public'::regnamespace "
        "UNION SELECT c.relname, t.attname, a.privilege_type "
        "FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a "
        "WHERE a.grantee IN (0, 'sluice_ingest'::regrole) AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    whole: dict[str, set[str]] = {}
    columns: dict[tuple[str, str], set[str]] = {}
    for table, column, privilege in rights:
        if column:
            columns.setdefault((table, privilege), set()).add(column)
        else:
            whole.setdefault(table, set()).add(privilege)
    assert whole == INGEST_TABLES
    assert columns == INGEST_COLUMNS
    creators = owner.execute(
        "SELECT role FROM unnest(%s::text[]) AS role WHERE has_schema_privilege(role, 'public', 'CREATE')",
        ([f"sluice_{role}" for role in PRODUCT_ROLES],),
    ).fetchall()
    assert creators == []


@pytest.mark.parametrize("role", ["auth", "operator"])
def test_nobody_opens_a_wallet_with_something_in_it(role: str, two: Populated) -> None:
    with (
        connected(role) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(
            "INSERT INTO quotas_wallet (tenant_id, currency, paid_nanos) VALUES (%s, 'USD', 1)", (uuid7(),)
        )


def test_a_tenant_cannot_make_itself_a_member_of_people_it_wants_to_read_about(
    two: Populated, tenant_role: Connection
) -> None:
    insert = "INSERT INTO tenants_membership (id, tenant_id, user_id, role) SELECT %s, %s, %s, 'VIEWER'"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute_as(tenant_role, two.mine.id, insert, uuid7(), two.mine.id, uuid7())


def test_making_partitions_neither_waits_for_a_reader_nor_stops_a_writer(two: Populated) -> None:
    with connected("operator", autocommit=False) as reader, connected("dataplane") as maker:
        reader.execute("SELECT count(*) FROM quotas_usagerecord")
        maker.execute("SET lock_timeout = '1s'")
        (made,) = maker.execute("SELECT quotas_make_partitions(9)").fetchone() or (0,)
    assert made > 0
