"""The database roles of the house, and the second tenant wall around the tables of this app."""

from pathlib import Path

from django.db import migrations

from portal.kit.migrations import (
    CURRENT_TENANT,
    LockTimeout,
    composite_foreign_key,
    grant,
    run_sql_file,
    tenant_wall,
)

SQL = Path(__file__).resolve().parent.parent / "sql"

ROLES = ("tenant", "operator", "auth", "dataplane", "ingest")

# Roles belong to the whole server, so another database of it may have made them already, even at
# this very moment. The owner's login may take each of them; deployments can give each its own login.
_EACH_ROLE = "\n".join(
    f"""
    IF to_regrole('sluice_{role}') IS NULL THEN
      BEGIN
        CREATE ROLE sluice_{role} NOLOGIN NOSUPERUSER NOBYPASSRLS;
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
      END;
    END IF;
    IF NOT pg_has_role(current_user, 'sluice_{role}', v_privilege) THEN
      EXECUTE format('GRANT sluice_{role} TO %I', current_user);
    END IF;
    GRANT USAGE ON SCHEMA public TO sluice_{role};
    """
    for role in ROLES
)
CREATE_ROLES = f"""
DO $$
DECLARE
  -- Taking a role became a right of its own in PostgreSQL 16.
  v_privilege text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  {_EACH_ROLE}
END $$
"""

# People are not tenant-owned: signing in crosses organizations. An organization sees its members.
PEOPLE_WALL = f"""
    ALTER TABLE tenants_user ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenants_user FORCE ROW LEVEL SECURITY;
    CREATE POLICY owner_all ON tenants_user FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);
    CREATE POLICY auth_all ON tenants_user FOR ALL TO sluice_auth USING (true) WITH CHECK (true);
    CREATE POLICY operator_all ON tenants_user FOR ALL TO sluice_operator USING (true) WITH CHECK (true);
    CREATE POLICY tenant_wall ON tenants_user FOR SELECT TO sluice_tenant USING (EXISTS (
      SELECT 1 FROM tenants_membership m WHERE m.user_id = tenants_user.id AND m.tenant_id = {CURRENT_TENANT}));
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        LockTimeout(),
        migrations.RunSQL(CREATE_ROLES, migrations.RunSQL.noop),
        # Functions that run as the owner look names up in this schema; clusters that began before
        # PostgreSQL 15 let everybody create some there.
        migrations.RunSQL(
            """
            REVOKE CREATE ON SCHEMA public FROM PUBLIC;
            DO $$ BEGIN
              IF has_schema_privilege('sluice_tenant', 'public', 'CREATE') THEN
                RAISE EXCEPTION 'everybody may create objects in schema public'
                  USING HINT = 'As its owner: REVOKE CREATE ON SCHEMA public FROM PUBLIC';
              END IF;
            END $$
            """,
            migrations.RunSQL.noop,
        ),
        composite_foreign_key("tenants_apikey", "tenant_id, rotated_from_id", "tenants_apikey", "tenant_id, id"),
        run_sql_file(SQL / "guards.sql"),
        tenant_wall("tenants_tenant", tenant_column="id"),
        tenant_wall("tenants_membership"),
        tenant_wall("tenants_apikey"),
        grant("SELECT", "tenants_tenant, tenants_membership", "tenant", "operator", "auth"),
        grant("SELECT", "tenants_apikey", "tenant", "operator"),
        grant("SELECT", "tenants_tenant, tenants_apikey", "dataplane"),
        grant("UPDATE (name)", "tenants_tenant", "tenant"),
        grant("INSERT", "tenants_tenant, tenants_membership", "operator", "auth"),
        grant("UPDATE (name, state, state_reason)", "tenants_tenant", "operator"),
        # Whom an organization has as a member it may read; so it cannot choose that itself.
        grant("UPDATE (role), DELETE", "tenants_membership", "tenant"),
        grant("INSERT, UPDATE, DELETE", "tenants_membership", "operator"),
        grant("INSERT", "tenants_apikey", "tenant", "operator"),
        grant(
            "UPDATE (name, labels, expires_at, revoked_at, restricts_models, rotated_from_id)",
            "tenants_apikey",
            "tenant",
            "operator",
        ),
        grant("UPDATE (last_used_at)", "tenants_apikey", "dataplane"),
        migrations.RunSQL(PEOPLE_WALL, migrations.RunSQL.noop),
        grant("SELECT, INSERT, UPDATE", "tenants_user", "auth", "operator"),
        grant("SELECT (id, email, full_name)", "tenants_user", "tenant"),
        grant("SELECT, INSERT, DELETE", "tenants_user_groups, tenants_user_user_permissions", "operator"),
        grant("SELECT", "tenants_user_groups, tenants_user_user_permissions", "auth"),
    ]
