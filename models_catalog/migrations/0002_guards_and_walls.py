"""Exclusion constraints, pricing functions, frozen published prices, and walls around grants."""

from pathlib import Path

from django.contrib.postgres.operations import BtreeGistExtension, TrigramExtension
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

FLEET = "models_catalog_servingpool, models_catalog_servingbackend, models_catalog_deployment"
PUBLIC = "models_catalog_catalogmodel, models_catalog_catalogrevision"
PRICES = (
    "models_catalog_priceversion",
    "models_catalog_pricewindow",
    "models_catalog_pricewindowspan",
    "models_catalog_priceline",
)
REVISED = (
    "models_catalog_catalogmodel",
    "models_catalog_servingpool",
    "models_catalog_servingbackend",
    "models_catalog_deployment",
    "models_catalog_priceversion",
)


def price_wall(table: str) -> migrations.RunSQL:
    """Tenants and the public see published list prices, and tenants their own private ones."""
    own = f"(tenant_id IS NULL OR tenant_id = {CURRENT_TENANT}) AND published_at IS NOT NULL"
    visible = own if table == PRICES[0] else f"EXISTS (SELECT 1 FROM {PRICES[0]} v WHERE v.id = version_id)"
    return migrations.RunSQL(
        f"""
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
        CREATE POLICY owner_all ON {table} FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);
        CREATE POLICY tenant_wall ON {table} FOR SELECT TO sluice_tenant, sluice_auth USING ({visible});
        CREATE POLICY operator_all ON {table} FOR ALL TO sluice_operator USING (true) WITH CHECK (true);
        CREATE POLICY dataplane_all ON {table} FOR SELECT TO sluice_dataplane USING (true);
        """,
        migrations.RunSQL.noop,
    )


class Migration(migrations.Migration):
    dependencies = [("models_catalog", "0001_initial")]

    operations = [
        LockTimeout(),
        BtreeGistExtension(),
        TrigramExtension(),
        composite_foreign_key(
            "models_catalog_apikeymodel", "tenant_id, api_key_id", "tenants_apikey", "tenant_id, id"
        ),
        composite_foreign_key(
            "models_catalog_pricewindowspan",
            "version_id, window_id",
            "models_catalog_pricewindow",
            "version_id, id",
        ),
        composite_foreign_key(
            "models_catalog_priceline", "version_id, window_id", "models_catalog_pricewindow", "version_id, id"
        ),
        run_sql_file(SQL / "prices.sql"),
        run_sql_file(SQL / "guards.sql"),
        *(
            migrations.RunSQL(
                f"CREATE TRIGGER catalog_raise_revision AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_revision()",
                migrations.RunSQL.noop,
            )
            for table in REVISED
        ),
        tenant_wall("models_catalog_modelgrant"),
        tenant_wall("models_catalog_apikeymodel"),
        *(price_wall(table) for table in PRICES),
        grant("SELECT", PUBLIC, "tenant", "operator", "auth", "dataplane"),
        grant("SELECT", PRICES, "tenant", "operator", "auth", "dataplane"),
        grant("SELECT", FLEET, "operator", "dataplane"),
        grant("INSERT, UPDATE", PUBLIC, "operator"),
        grant("INSERT, UPDATE", FLEET, "operator"),
        grant("INSERT, UPDATE, DELETE", PRICES, "operator"),
        grant("SELECT", "models_catalog_modelgrant, models_catalog_apikeymodel", "tenant", "operator", "dataplane"),
        grant("INSERT", "models_catalog_modelgrant", "tenant", "operator"),
        grant("UPDATE (ended_at)", "models_catalog_modelgrant", "tenant", "operator"),
        grant("INSERT, DELETE", "models_catalog_apikeymodel", "tenant", "operator"),
    ]
