"""Admission and settlement keep quotas and budgets."""

from pathlib import Path

from django.db import migrations

from portal.kit.migrations import LockTimeout, run_sql_file

HERE = Path(__file__).resolve().parent.parent


class Migration(migrations.Migration):
    dependencies = [("quotas", "0005_limits")]

    operations = [
        LockTimeout(),
        run_sql_file(HERE / "limits" / "sql" / "uses.sql"),
        # Its answer has more columns now. Gateways that run name those they know, so they may go on.
        migrations.RunSQL("DROP FUNCTION quotas_admit(jsonb, int, int)", migrations.RunSQL.noop),
        run_sql_file(HERE / "sql" / "admission_within_limits.sql"),
        run_sql_file(HERE / "sql" / "settlement_within_limits.sql"),
    ]
