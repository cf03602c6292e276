"""The ledger's triggers and functions, admission and settlement, partitions, and the tenant walls."""

from pathlib import Path

from django.db import migrations

from portal.kit.migrations import (
    LockTimeout,
    composite_foreign_key,
    grant,
    grant_function,
    run_sql_file,
    tenant_wall,
)

HERE = Path(__file__).resolve().parent.parent

OWNED = (
    "quotas_wallet",
    "quotas_ledgeraccount",
    "quotas_ledgertransfer",
    "quotas_ledgerentry",
    "quotas_inferencerequest",
    "quotas_attempt",
    "quotas_hold",
    "quotas_usagerecord",
    "quotas_usagerollup",
)
FROZEN = ("quotas_inferencerequest", "quotas_usagerecord")
MOVING = ("quotas_attempt", "quotas_hold", "quotas_usagerollup")
LEDGER = ("quotas_ledgertransfer", "quotas_ledgerentry")


class Migration(migrations.Migration):
    dependencies = [("quotas", "0001_initial")]

    operations = [
        LockTimeout(),
        composite_foreign_key("quotas_wallet", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_ledgerentry", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_ledgerentry", "account_id, currency", "quotas_ledgeraccount", "id, currency"),
        composite_foreign_key("quotas_inferencerequest", "tenant_id, api_key_id", "tenants_apikey", "tenant_id, id"),
        composite_foreign_key("quotas_inferencerequest", "model_id", "models_catalog_catalogmodel", "id"),
        composite_foreign_key("quotas_inferencerequest", "price_version_id", "models_catalog_priceversion", "id"),
        composite_foreign_key(
            "quotas_inferencerequest",
            "price_version_id, price_window_id",
            "models_catalog_pricewindow",
            "version_id, id",
        ),
        composite_foreign_key("quotas_attempt", "request_id, tenant_id", "quotas_inferencerequest", "id, tenant_id"),
        composite_foreign_key("quotas_attempt", "deployment_id", "models_catalog_deployment", "id"),
        composite_foreign_key("quotas_hold", "request_id, tenant_id", "quotas_inferencerequest", "id, tenant_id"),
        composite_foreign_key("quotas_hold", "tenant_id", "quotas_wallet", "tenant_id"),
        composite_foreign_key("quotas_usagerecord", "request_id, tenant_id", "quotas_inferencerequest", "id, tenant_id"),
        composite_foreign_key("quotas_usagerollup", "tenant_id, api_key_id", "tenants_apikey", "tenant_id, id"),
        run_sql_file(HERE / "ledger" / "sql" / "ledger.sql"),
        run_sql_file(HERE / "ledger" / "sql" / "credit.sql"),
        run_sql_file(HERE / "sql" / "partitions.sql"),
        run_sql_file(HERE / "sql" / "admission.sql"),
        run_sql_file(HERE / "sql" / "settlement.sql"),
        migrations.RunSQL("SELECT quotas_make_partitions(7)", migrations.RunSQL.noop),
        *(tenant_wall(table) for table in OWNED),
        grant("SELECT", OWNED, "tenant", "operator", "dataplane"),
        # What was admitted and what was used is never edited; the rest of a call moves on.
        *(
            migrations.RunSQL(
                f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION quotas_refuse_change()",
                migrations.RunSQL.noop,
            )
            for table in FROZEN
        ),
        grant("INSERT", FROZEN, "dataplane"),
        grant("INSERT, UPDATE", MOVING, "dataplane"),
        grant("INSERT", LEDGER, "dataplane", "operator"),
        # A wallet begins with nothing: whoever opens one cannot name its amounts.
        migrations.RunSQL(
            "ALTER TABLE quotas_wallet "
            + ", ".join(
                f"ALTER COLUMN {name}_nanos SET DEFAULT 0"
                for name in ("paid", "granted", "receivable", "pending", "overdraft")
            ),
            migrations.RunSQL.noop,
        ),
        grant("INSERT (tenant_id, currency)", "quotas_wallet", "operator", "auth"),
        grant("INSERT", "quotas_ledgeraccount", "operator", "auth"),
        grant("SELECT", "quotas_wallet, quotas_ledgeraccount, quotas_ledgertransfer", "auth"),
        # Locking a row needs the right to update a column of it; this one cannot take another value.
        grant("UPDATE (currency)", "quotas_wallet", "dataplane"),
        grant("UPDATE (overdraft_nanos)", "quotas_wallet", "operator"),
        grant_function("quotas_make_partitions(int)", "dataplane", "operator"),
        migrations.RunSQL(
            "REVOKE ALL ON FUNCTION quotas_apply_entries(), quotas_apply_new_holds(), "
            "quotas_apply_resolved_holds() FROM PUBLIC",
            migrations.RunSQL.noop,
        ),
    ]
