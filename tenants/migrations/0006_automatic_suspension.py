"""Suspensions that the system made by itself, and lifts by itself."""

from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0005_management_keys'),
    ]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='tenant',
            name='suspension_cause',
            field=models.CharField(blank=True, choices=[('RECEIVABLE', 'Receivable')], db_default='', default='', help_text="Of an automatic suspension; empty for an operator's, which only an operator lifts.", max_length=16),
        ),
        migrations.AddConstraint(
            model_name='tenant',
            constraint=models.CheckConstraint(condition=models.Q(('suspension_cause', ''), models.Q(('state', 'SUSPENDED'), ('suspension_cause__in', ['RECEIVABLE'])), _connector='OR'), name='tenant_suspended_for_cause'),
        ),
        grant("UPDATE (suspension_cause)", "tenants_tenant", "operator"),
    ]
