"""Which requests two witnesses agree about, and of which corrections organizations were told."""

from pathlib import Path

from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, grant_function, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "reconciliation" / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0018_windows"),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name="CorrectionNotice",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "request_id",
                        "revision",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("request_id", models.UUIDField()),
                ("revision", models.PositiveSmallIntegerField()),
                ("told_at", models.DateTimeField()),
            ],
        ),
        migrations.AddIndex(
            model_name="correction",
            index=models.Index(fields=["posted_at"], name="correction_posted"),
        ),
        composite_foreign_key(
            "quotas_correctionnotice", "request_id, revision", "quotas_correction", "request_id, revision"
        ),
        grant("SELECT, INSERT", "quotas_correctionnotice", "operator"),
        run_sql_file(SQL / "confirmed.sql"),
        grant_function("quotas_confirmed(uuid[])", "tenant"),
        grant_function("quotas_confirmed_of(uuid, uuid[])", "operator", "dataplane"),
        grant_function("quotas_id_moved(uuid, interval)", "operator", "dataplane"),
    ]
