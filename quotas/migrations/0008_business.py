"""What each hour of each deployment cost and earned."""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, run_sql_file, tenant_wall

HERE = Path(__file__).resolve().parent.parent

HOURS = ("quotas_allocatedhour", "quotas_poolhour", "quotas_deploymenthour", "quotas_businesshour")


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0007_credit_orders"),
        ("models_catalog", "0004_price_drafts"),
        ("tenants", "0004_audit"),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='AllocatedHour',
            fields=[
                ('hour', models.DateTimeField(primary_key=True, serialize=False)),
                ('covered_until', models.DateTimeField()),
                ('is_final', models.BooleanField()),
                ('mark', models.CharField(max_length=100)),
                ('allocated_at', models.DateTimeField()),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('is_final', False)), fields=['hour'], name='allocatedhour_open')],
                'constraints': [models.CheckConstraint(condition=models.Q(('covered_until__gt', models.F('hour'))), name='allocatedhour_covers_something')],
            },
        ),
        migrations.CreateModel(
            name='PoolHour',
            fields=[
                ('pk', models.CompositePrimaryKey('hour', 'pool_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('pool', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingpool')),
                ('currency', models.CharField(blank=True, max_length=3)),
                ('cost_nanos', models.BigIntegerField()),
                ('unreserved_nanos', models.BigIntegerField(help_text='The cost of the share that is reserved for nobody.')),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('unreserved_nanos__gte', 0), ('unreserved_nanos__lte', models.F('cost_nanos'))), name='poolhour_parts_within_whole'),
                    models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$'), models.Q(('cost_nanos', 0), ('currency', '')), _connector='OR'), name='poolhour_cost_has_currency'),
                ],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='DeploymentHour',
            fields=[
                ('pk', models.CompositePrimaryKey('hour', 'deployment_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.deployment')),
                ('pool', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingpool')),
                ('backend', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingbackend')),
                ('model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
                ('capacity', models.BigIntegerField(help_text='Certified weighted tokens of the hour, in thousandths.')),
                ('weighted', models.BigIntegerField(help_text='Weighted tokens that were served, in thousandths.')),
                ('cost_nanos', models.BigIntegerField()),
                ('idle_nanos', models.BigIntegerField(help_text='The cost of what was reserved and not sold.')),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('idle_nanos__gte', 0), ('idle_nanos__lte', models.F('cost_nanos'))), name='deploymenthour_parts_within_whole'),
                    models.CheckConstraint(condition=models.Q(('capacity__gte', 0), ('weighted__gte', 0)), name='deploymenthour_tokens_positive'),
                ],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='BusinessHour',
            fields=[
                ('pk', models.CompositePrimaryKey('hour', 'deployment_id', 'tenant_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.deployment')),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('requests', models.BigIntegerField()),
                ('uncosted_requests', models.BigIntegerField()),
                ('prompt_tokens', models.BigIntegerField(help_text='With the cached ones.')),
                ('cached_tokens', models.BigIntegerField()),
                ('completion_tokens', models.BigIntegerField()),
                ('weighted', models.BigIntegerField(help_text='In thousandths of a weighted token.')),
                ('currency', models.CharField(max_length=3)),
                ('revenue_nanos', models.BigIntegerField()),
                ('granted_nanos', models.BigIntegerField()),
                ('overrun_nanos', models.BigIntegerField()),
                ('cost_nanos', models.BigIntegerField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('cost_nanos__gte', 0), ('granted_nanos__gte', 0), ('overrun_nanos__gte', 0), ('revenue_nanos__gte', 0)), name='businesshour_amounts_positive')],
                'indexes': [models.Index(fields=['tenant', 'hour'], name='businesshour_tenant_hour')],
            },
        ),
        migrations.AddIndex(
            model_name='ledgertransfer',
            index=models.Index(condition=models.Q(('kind', 'USAGE'), _negated=True), fields=['posted_at'], name='transfer_posted_otherwise'),
        ),
        migrations.AddIndex(
            model_name='usagerollup',
            index=models.Index(fields=['hour'], name='rollup_hour'),
        ),
        run_sql_file(HERE / "business" / "sql" / "business.sql"),
        # What an organization costs us is not its own to see: the tenant role has no grant.
        tenant_wall("quotas_businesshour", crossing=("operator",)),
        grant("SELECT, INSERT", HOURS, "operator"),
        # An hour goes as a whole, and is never edited.
        grant("DELETE", "quotas_allocatedhour", "operator"),
    ]
