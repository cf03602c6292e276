import django.contrib.postgres.fields
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
from django.db import migrations, models
from portal.kit.migrations import LockTimeout


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('tenants', '0002_roles_and_walls'),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='CatalogModel',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('slug', models.CharField(help_text='vendor/name, as clients write it.', max_length=120, unique=True)),
                ('display_name', models.CharField(max_length=120)),
                ('description', models.TextField(blank=True, max_length=4000)),
                ('context_tokens', models.PositiveIntegerField()),
                ('max_output_tokens', models.PositiveIntegerField()),
                ('default_output_cap_tokens', models.PositiveIntegerField(help_text='Applies when the client sends no cap.')),
                ('template_overhead_tokens', models.PositiveIntegerField(default=256, help_text='Upper bound of what the chat template adds to the text of the messages.')),
                ('image_allowance_tokens', models.PositiveIntegerField(blank=True, help_text='Upper bound of one image; empty when the model takes no images.', null=True)),
                ('capabilities', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=32), blank=True, default=list, size=None)),
                ('extra_fields', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), blank=True, default=list, help_text='Request fields allowed beyond those of the engine.', size=None)),
                ('state', models.CharField(choices=[('ACTIVE', 'Active'), ('RETIRED', 'Retired')], default='ACTIVE', max_length=16)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['ACTIVE', 'RETIRED'])), name='model_state_known'), models.CheckConstraint(condition=models.Q(('slug__regex', '^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._:-]*$')), name='model_slug_form'), models.CheckConstraint(condition=models.Q(('default_output_cap_tokens__gte', 1), ('default_output_cap_tokens__lte', models.F('max_output_tokens')), ('max_output_tokens__lt', models.F('context_tokens'))), name='model_output_within_context'), models.CheckConstraint(condition=models.Q(('context_tokens__lte', 20000000)), name='model_context_bounded')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='ModelGrant',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='grants', to='models_catalog.catalogmodel')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('ended_at__isnull', True)), fields=('tenant', 'model'), name='grant_open_once')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='ApiKeyModel',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('api_key', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('api_key', 'model'), name='apikeymodel_once')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='CatalogRevision',
            fields=[
                ('id', models.SmallIntegerField(primary_key=True, serialize=False)),
                ('revision', models.BigIntegerField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='catalogrevision_one_row')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='ServingPool',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('code', models.SlugField(max_length=64, unique=True)),
                ('name', models.CharField(max_length=120)),
                ('accelerator_kind', models.CharField(max_length=64)),
                ('region', models.CharField(max_length=64)),
            ],
            options={
                'indexes': [],
                'constraints': [],
            },
        ),
        migrations.CreateModel(
            name='ServingBackend',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('code', models.SlugField(max_length=64, unique=True)),
                ('pool', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='backends', to='models_catalog.servingpool')),
                ('engine', models.CharField(choices=[('sglang', 'Sglang'), ('vllm', 'Vllm'), ('llamacpp', 'Llamacpp'), ('generic', 'Generic')], max_length=16)),
                ('engine_version', models.CharField(blank=True, max_length=64)),
                ('base_url', models.URLField(help_text='Without /v1.', max_length=500)),
                ('credential_encrypted', models.TextField(blank=True, max_length=4000)),
                ('max_concurrency', models.PositiveIntegerField(help_text='Calls at a time that the engine serves well.')),
                ('state', models.CharField(choices=[('ACTIVE', 'Active'), ('DRAINING', 'Draining'), ('DISABLED', 'Disabled')], default='ACTIVE', max_length=16)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('engine__in', ['sglang', 'vllm', 'llamacpp', 'generic'])), name='backend_engine_known'), models.CheckConstraint(condition=models.Q(('state__in', ['ACTIVE', 'DRAINING', 'DISABLED'])), name='backend_state_known'), models.CheckConstraint(condition=models.Q(('max_concurrency__gte', 1)), name='backend_capacity')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='Deployment',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='deployments', to='models_catalog.catalogmodel')),
                ('backend', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='deployments', to='models_catalog.servingbackend')),
                ('upstream_model', models.CharField(max_length=200)),
                ('state', models.CharField(choices=[('ACTIVE', 'Active'), ('DRAINING', 'Draining'), ('DISABLED', 'Disabled')], default='ACTIVE', max_length=16)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('model', 'backend'), name='deployment_once'), models.CheckConstraint(condition=models.Q(('state__in', ['ACTIVE', 'DRAINING', 'DISABLED'])), name='deployment_state_known')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='PriceVersion',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='price_versions', to='models_catalog.catalogmodel')),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('time_zone', models.CharField(default='UTC', help_text='IANA name; windows are in it.', max_length=64)),
                ('active_from', models.DateTimeField()),
                ('active_to', models.DateTimeField(blank=True, null=True)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='price_currency_code'), models.CheckConstraint(condition=models.Q(('active_to__isnull', True), ('active_to__gte', models.F('active_from')), _connector='OR'), name='price_period_forward')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='PriceWindow',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='windows', to='models_catalog.priceversion')),
                ('name', models.CharField(max_length=64)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('version', 'name'), name='window_name_once'), models.UniqueConstraint(fields=('version', 'id'), name='window_version_id')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='PriceWindowSpan',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.priceversion')),
                ('window', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='spans', to='models_catalog.pricewindow')),
                ('minutes', django.contrib.postgres.fields.ranges.IntegerRangeField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('minutes__contained_by', (0, 10080)), ('minutes__isempty', False)), name='span_within_week')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='PriceLine',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='models_catalog.priceversion')),
                ('token_class', models.CharField(choices=[('input', 'Input'), ('cached_input', 'Cached Input'), ('output', 'Output'), ('reasoning', 'Reasoning'), ('image', 'Image'), ('request', 'Request')], max_length=16)),
                ('service_tier', models.CharField(choices=[('standard', 'Standard'), ('batch', 'Batch'), ('reserved', 'Reserved')], default='standard', max_length=16)),
                ('window', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='models_catalog.pricewindow')),
                ('input_from_tokens', models.PositiveIntegerField(default=0)),
                ('input_to_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('price_nanos_per_million', models.BigIntegerField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('price_nanos_per_million__gte', 0), ('price_nanos_per_million__lte', 1000000000000)), name='line_price_bounded'), models.CheckConstraint(condition=models.Q(('token_class__in', ['input', 'cached_input', 'output', 'reasoning', 'image', 'request'])), name='line_class_known'), models.CheckConstraint(condition=models.Q(('service_tier__in', ['standard', 'batch', 'reserved'])), name='line_tier_known'), models.CheckConstraint(condition=models.Q(('input_to_tokens__isnull', True), ('input_to_tokens__gt', models.F('input_from_tokens')), _connector='OR'), name='line_band_forward')],
                'indexes': [],
            },
        ),
    ]

