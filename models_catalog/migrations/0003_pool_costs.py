"""What pools cost and what deployments can carry, effective-dated."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.functions.text
import django.db.models.lookups
import portal.kit.ids
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, grant_function, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "sql"

DATED = "models_catalog_poolcostversion, models_catalog_capacityversion"


class Migration(migrations.Migration):
    dependencies = [("models_catalog", "0002_guards_and_walls"), ("tenants", "0004_audit")]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='PoolCostVersion',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('pool', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='costs', to='models_catalog.servingpool')),
                ('currency', models.CharField(max_length=3)),
                ('accelerators', models.PositiveIntegerField()),
                ('depreciation_nanos_per_accelerator_hour', models.BigIntegerField()),
                ('other_nanos_per_accelerator_hour', models.BigIntegerField(default=0, help_text='Rent, staff, network and all that is neither depreciation nor energy.')),
                ('power_watts', models.PositiveIntegerField(help_text='Drawn by the whole pool with its hosts, before PUE.')),
                ('pue_thousandths', models.PositiveIntegerField(default=1000, help_text='Power usage effectiveness: 1250 is 1.25.')),
                ('energy_nanos_per_kwh', models.BigIntegerField()),
                ('owner', models.CharField(blank=True, help_text='Whose hardware it is.', max_length=120)),
                ('region', models.CharField(blank=True, max_length=64)),
                ('active_from', models.DateTimeField()),
                ('active_to', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='poolcost_currency_code'),
                    models.CheckConstraint(condition=models.Q(('accelerators__range', (1, 100000))), name='poolcost_accelerators_bounded'),
                    models.CheckConstraint(condition=models.Q(('depreciation_nanos_per_accelerator_hour__range', (0, 1000000000000)), ('other_nanos_per_accelerator_hour__range', (0, 1000000000000))), name='poolcost_hour_bounded'),
                    models.CheckConstraint(condition=models.Q(('energy_nanos_per_kwh__range', (0, 10000000000)), ('power_watts__range', (0, 1000000000)), ('pue_thousandths__range', (1000, 10000))), name='poolcost_energy_bounded'),
                    models.CheckConstraint(condition=models.Q(('active_to', None), ('active_to__gte', models.F('active_from')), _connector='OR'), name='poolcost_period_forward'),
                ],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='CapacityVersion',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='capacities', to='models_catalog.deployment')),
                ('reserved_ppm', models.PositiveIntegerField(help_text='Share of its pool, in millionths.')),
                ('input_weight', models.PositiveIntegerField(help_text='Of an input token that is not cached, in thousandths.')),
                ('cached_weight', models.PositiveIntegerField(help_text='Of a cached input token, in thousandths.')),
                ('output_weight', models.PositiveIntegerField(help_text='Of an output token, in thousandths.')),
                ('capacity_tokens_per_s', models.PositiveIntegerField(help_text='Certified, in weighted tokens.')),
                ('active_from', models.DateTimeField()),
                ('active_to', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('reserved_ppm__range', (0, 1000000))), name='capacity_share_bounded'),
                    models.CheckConstraint(condition=models.Q(('cached_weight__range', (0, 1000000)), ('input_weight__range', (0, 1000000)), ('output_weight__range', (1, 1000000))), name='capacity_weights_bounded'),
                    models.CheckConstraint(condition=models.Q(('capacity_tokens_per_s__range', (1, 1000000000))), name='capacity_speed_bounded'),
                    models.CheckConstraint(condition=models.Q(('active_to', None), ('active_to__gte', models.F('active_from')), _connector='OR'), name='capacity_period_forward'),
                ],
                'indexes': [],
            },
        ),
        migrations.AddField(
            model_name='servingbackend',
            name='configuration',
            field=models.TextField(blank=True, db_default='', default='', help_text='What operators note about it: flags, quantisation, driver versions. No secrets.', max_length=8000),
        ),
        migrations.AddConstraint(
            model_name='servingbackend',
            constraint=models.CheckConstraint(condition=django.db.models.lookups.LessThanOrEqual(django.db.models.functions.text.Length('configuration'), 8000), name='backend_configuration_bounded'),
        ),
        run_sql_file(SQL / "costs.sql"),
        grant("SELECT, INSERT", DATED, "operator"),
        grant("UPDATE (active_to)", DATED, "operator"),
        grant_function(
            "catalog_cost_parts(bigint, bigint, bigint, bigint, bigint, bigint, int)", "operator"
        ),
        grant_function("catalog_pool_cost_parts(uuid, int)", "operator"),
        grant_function("catalog_pool_cost_nanos(uuid, int)", "operator"),
    ]
