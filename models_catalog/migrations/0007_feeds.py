"""Where backends say what they have served."""

import django.db.models.deletion
import portal.kit.ids
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant


class Migration(migrations.Migration):

    dependencies = [
        ('models_catalog', '0006_curves'),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='UsageFeed',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('code', models.SlugField(max_length=64, unique=True)),
                ('format', models.CharField(choices=[('sglang_log', 'Sglang Log'), ('sglang_export', 'Sglang Export'), ('vllm_otlp', 'Vllm Otlp'), ('vllm_middleware', 'Vllm Middleware'), ('cloudevents', 'Cloudevents'), ('ndjson', 'Ndjson'), ('csv', 'Csv')], max_length=24)),
                ('folder', models.CharField(blank=True, default='', help_text='Watched; empty when none is.', max_length=500)),
                ('columns', models.JSONField(blank=True, default=dict, help_text='Of NDJSON and CSV: our name to theirs.')),
                ('time_zone', models.CharField(default='UTC', help_text='Of times that name none.', max_length=64)),
                ('credential_encrypted', models.TextField(blank=True, default='', max_length=4000)),
                ('grace_s', models.PositiveIntegerField(default=300, help_text='How late a line may come at the latest.')),
                ('is_enabled', models.BooleanField(default=True)),
                ('backend', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='feeds', to='models_catalog.servingbackend')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('id', 'backend'), name='feed_id_backend'), models.CheckConstraint(condition=models.Q(('format__in', ['sglang_log', 'sglang_export', 'vllm_otlp', 'vllm_middleware', 'cloudevents', 'ndjson', 'csv'])), name='feed_format_known'), models.CheckConstraint(condition=models.Q(('grace_s__lte', 604800)), name='feed_grace_bounded')],
            },
        ),
        grant("SELECT, INSERT, UPDATE", "models_catalog_usagefeed", "operator"),
        grant("SELECT", "models_catalog_usagefeed", "dataplane", "ingest"),
        # Never a backend's own credential.
        grant("SELECT (id, code, engine, state)", "models_catalog_servingbackend", "ingest"),
        grant("SELECT", "models_catalog_deployment", "ingest"),
    ]
