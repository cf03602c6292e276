"""What was measured of deployments, and what each of them can do."""

from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, grant_function, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "sql"

ARRAY = django.contrib.postgres.fields.ArrayField


class Migration(migrations.Migration):
    dependencies = [("models_catalog", "0005_model_addresses")]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='deployment',
            name='capabilities',
            field=ARRAY(base_field=models.CharField(max_length=32), blank=True, help_text='Where it cannot do all that the model can; empty when it can.', null=True, size=None),
        ),
        migrations.AddField(
            model_name='deployment',
            name='context_tokens',
            field=models.PositiveIntegerField(blank=True, help_text='Where it has less room than the model; empty when it has all.', null=True),
        ),
        migrations.AddField(
            model_name='deployment',
            name='quantisation',
            field=models.CharField(blank=True, db_default='', default='', help_text='Of its weights, such as FP8 or AWQ.', max_length=64),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(('context_tokens', None), ('context_tokens__gte', 1), _connector='OR'), name='deployment_context_positive'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(('capabilities', None), ('capabilities__len__lte', 32), _connector='OR'), name='deployment_capabilities_bounded'),
        ),
        migrations.CreateModel(
            name='DeploymentCurve',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='curves', to='models_catalog.deployment')),
                ('measured_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('engine_version', models.CharField(blank=True, default='', max_length=64)),
                ('quantisation', models.CharField(blank=True, default='', max_length=64)),
                ('configuration', models.TextField(blank=True, default='', max_length=8000)),
                ('note', models.CharField(blank=True, default='', max_length=500)),
                ('concurrency', ARRAY(base_field=models.PositiveIntegerField(), size=None)),
                ('ttft_p50_ms', ARRAY(base_field=models.PositiveIntegerField(), size=None)),
                ('ttft_p95_ms', ARRAY(base_field=models.PositiveIntegerField(), size=None)),
                ('inter_token_us', ARRAY(base_field=models.PositiveIntegerField(), size=None)),
                ('output_tokens_per_s', ARRAY(base_field=models.FloatField(), size=None)),
                ('prompt_tokens', models.PositiveIntegerField()),
                ('output_tokens', models.PositiveIntegerField()),
                ('prefill_ns', models.BigIntegerField(help_text='Of a further input token, in nanoseconds.')),
                ('limit_ttft_p95_ms', models.PositiveIntegerField()),
                ('limit_call_tokens_per_s', models.FloatField()),
                ('certified_concurrency', models.PositiveIntegerField()),
                ('certified_tokens_per_s', models.PositiveIntegerField(help_text='In weighted tokens.')),
                ('input_weight', models.PositiveIntegerField()),
                ('cached_weight', models.PositiveIntegerField(blank=True, help_text='Empty when no cache showed itself.', null=True)),
                ('output_weight', models.PositiveIntegerField(default=1000)),
                ('spent_prompt_tokens', models.BigIntegerField()),
                ('spent_output_tokens', models.BigIntegerField()),
                ('took_ms', models.PositiveIntegerField()),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('prompt_tokens__gte', 0), ('output_tokens__gte', 1), ('prefill_ns__range', (0, 1000000000000)), ('spent_prompt_tokens__gte', 0), ('spent_output_tokens__gte', 0)), name='curve_counts_positive'),
                    models.CheckConstraint(condition=models.Q(models.Q(('certified_concurrency', 0), ('certified_tokens_per_s', 0)), models.Q(('certified_concurrency__gte', 1), ('certified_tokens_per_s__range', (1, 1000000000))), _connector='OR'), name='curve_certified_whole'),
                    models.CheckConstraint(condition=models.Q(('input_weight__range', (0, 1000000)), ('output_weight__range', (1, 1000000)), models.Q(('cached_weight', None), ('cached_weight__range', (0, 1000000)), _connector='OR')), name='curve_weights_bounded'),
                ],
                'indexes': [models.Index(fields=['deployment', '-measured_at'], name='curve_newest')],
            },
        ),
        run_sql_file(SQL / "curves.sql"),
        grant("SELECT, INSERT", "models_catalog_deploymentcurve", "operator"),
        grant("SELECT", "models_catalog_deploymentcurve", "dataplane"),
        grant_function("catalog_energy_costs()", "dataplane"),
    ]
