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
CREATE_ROLES = "\n".join(
    f"""
    BEGIN
      CREATE ROLE sluice_{role} NOLOGIN NOSUPERUSER NOBYPASSRLS;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    IF NOT pg_has_role(current_user, 'sluice_{role}', 'SET') THEN
      EXECUTE format('GRANT sluice_{role} TO %I', current_user);
    END IF;
    GRANT USAGE ON SCHEMA public TO sluice_{role};
    """
    for role in ROLES
)

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
        migrations.RunSQL(f"DO $$ BEGIN {CREATE_ROLES} END $$", migrations.RunSQL.noop),
        composite_foreign_key("tenants_apikey", "tenant_id, rotated_from_id", "tenants_apikey", "tenant_id, id"),
        run_sql_file(SQL / "guards.sql"),
        tenant_wall("tenants_tenant", tenant_column="id"),
        tenant_wall("tenants_membership"),
        tenant_wall("tenants_apikey"),
        grant("SELECT", "tenants_tenant, tenants_membership, tenants_apikey", "tenant", "operator", "auth"),
        grant("SELECT", "tenants_tenant, tenants_apikey", "dataplane"),
        grant("UPDATE (name)", "tenants_tenant", "tenant"),
        grant("INSERT", "tenants_tenant, tenants_membership", "operator", "auth"),
        grant("UPDATE (name, state, state_reason)", "tenants_tenant", "operator"),
        grant("INSERT, UPDATE, DELETE", "tenants_membership", "tenant", "operator"),
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
