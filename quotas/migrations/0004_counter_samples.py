"""What the counters of the backends said, and when."""

from pathlib import Path

import django.db.models.deletion
import portal.kit.ids
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, grant_function, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "reconciliation" / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("models_catalog", "0002_guards_and_walls"),
        ("quotas", "0003_welcome_grants"),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name="CounterSample",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "incarnation",
                    models.PositiveIntegerField(help_text="0 until the counters have been read once."),
                ),
                ("asked_at", models.DateTimeField()),
                ("sampled_at", models.DateTimeField()),
                (
                    "prompt_tokens",
                    models.BigIntegerField(blank=True, help_text="As the engine counts them.", null=True),
                ),
                ("cached_tokens", models.BigIntegerField(blank=True, null=True)),
                ("completion_tokens", models.BigIntegerField(blank=True, null=True)),
                ("requests_finished", models.BigIntegerField(blank=True, null=True)),
                (
                    "running",
                    models.BigIntegerField(blank=True, help_text="Requests that run or wait.", null=True),
                ),
                ("prompt_excludes_cached", models.BooleanField(default=False)),
                ("start_mark", models.CharField(blank=True, max_length=64)),
                ("error", models.CharField(blank=True, max_length=200)),
                (
                    "backend",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="models_catalog.servingbackend",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["backend", "-sampled_at"], name="sample_backend_time"),
                    models.Index(
                        condition=models.Q(("error", "")),
                        fields=["backend", "incarnation", "sampled_at"],
                        name="sample_backend_read",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("completion_tokens__isnull", False),
                                ("error", ""),
                                ("incarnation__gte", 1),
                                ("prompt_tokens__isnull", False),
                            ),
                            models.Q(
                                models.Q(("error", ""), _negated=True),
                                ("cached_tokens__isnull", True),
                                ("completion_tokens__isnull", True),
                                ("prompt_tokens__isnull", True),
                                ("requests_finished__isnull", True),
                                ("running__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="sample_read_or_failed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("prompt_tokens__gte", 0),
                            ("completion_tokens__gte", 0),
                            models.Q(
                                ("cached_tokens__isnull", True), ("cached_tokens__gte", 0), _connector="OR"
                            ),
                            models.Q(
                                ("requests_finished__isnull", True),
                                ("requests_finished__gte", 0),
                                _connector="OR",
                            ),
                            models.Q(("running__isnull", True), ("running__gte", 0), _connector="OR"),
                        ),
                        name="sample_counts_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("asked_at__lte", models.F("sampled_at"))),
                        name="sample_asked_before",
                    ),
                ],
            },
        ),
        run_sql_file(SQL / "counter_samples.sql"),
        grant("SELECT", "quotas_countersample", "operator", "dataplane"),
        # Thinning locks what it deletes; the trigger keeps the last two days and refuses every change.
        grant("INSERT, DELETE", "quotas_countersample", "dataplane"),
        migrations.RunSQL(
            "REVOKE ALL ON FUNCTION quotas_check_counter_sample(), quotas_keep_counter_sample() FROM PUBLIC",
            migrations.RunSQL.noop,
        ),
        grant_function("quotas_thin_counter_samples()", "dataplane"),
    ]
