"""What control windows carry over from one to the next, and the samples they stand on."""

from pathlib import Path

from django.db import migrations, models
from django.db.models import F, Q

from portal.kit.migrations import LockTimeout, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "reconciliation" / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0017_matching"),
    ]

    operations = [
        LockTimeout(),
        *(
            migrations.AddField(
                model_name="controlwindow",
                name=name,
                field=models.BigIntegerField(default=0, db_default=0),
            )
            for name in (
                "carried_prompt_low",
                "carried_prompt_high",
                "carried_completion_low",
                "carried_completion_high",
            )
        ),
        migrations.AddConstraint(
            model_name="controlwindow",
            constraint=models.CheckConstraint(
                condition=Q(
                    carried_prompt_low__lte=F("carried_prompt_high"),
                    carried_completion_low__lte=F("carried_completion_high"),
                ),
                name="window_carried_bounds",
            ),
        ),
        run_sql_file(SQL / "windows.sql"),
    ]
