"""Further names of models, where they are offered, how long they are served, and what a call that was cut costs."""

from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("models_catalog", "0004_price_drafts")]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='catalogmodel',
            name='endpoints',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=32), blank=True, db_default=[], default=list, help_text='Those of /v1 that the model is offered at; without any, what suits its capabilities.', size=None),
        ),
        migrations.AddField(
            model_name='catalogmodel',
            name='cancel_policy',
            field=models.CharField(choices=[('DELIVERED', 'Delivered'), ('INPUT', 'Input'), ('NOTHING', 'Nothing')], db_default='DELIVERED', default='DELIVERED', max_length=16),
        ),
        migrations.AddField(
            model_name='catalogmodel',
            name='deprecated_at',
            field=models.DateTimeField(blank=True, help_text='Since when it is discouraged.', null=True),
        ),
        migrations.AddField(
            model_name='catalogmodel',
            name='sunset_at',
            field=models.DateTimeField(blank=True, help_text='From when on it is not served.', null=True),
        ),
        migrations.AddField(
            model_name='catalogmodel',
            name='successor',
            field=models.ForeignKey(blank=True, help_text='What to use instead of a deprecated model.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel'),
        ),
        migrations.AddConstraint(
            model_name='catalogmodel',
            constraint=models.CheckConstraint(condition=models.Q(('endpoints__contained_by', ['chat.completions', 'completions', 'embeddings', 'responses', 'messages'])), name='model_endpoints_known'),
        ),
        migrations.AddConstraint(
            model_name='catalogmodel',
            constraint=models.CheckConstraint(condition=models.Q(('cancel_policy__in', ['DELIVERED', 'INPUT', 'NOTHING'])), name='model_cancel_policy_known'),
        ),
        migrations.AddConstraint(
            model_name='catalogmodel',
            constraint=models.CheckConstraint(condition=models.Q(('sunset_at__isnull', True), models.Q(('deprecated_at__isnull', False), ('deprecated_at__lte', models.F('sunset_at'))), _connector='OR'), name='model_deprecated_before_sunset'),
        ),
        migrations.AddConstraint(
            model_name='catalogmodel',
            constraint=models.CheckConstraint(condition=models.Q(('successor', models.F('id')), _negated=True), name='model_successor_is_another'),
        ),
        migrations.CreateModel(
            name='ModelAlias',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(help_text='As clients write it.', max_length=120, unique=True)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='aliases', to='models_catalog.catalogmodel')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('name__regex', '^[A-Za-z0-9][A-Za-z0-9._:/-]*$')), name='alias_name_form')],
                'indexes': [],
            },
        ),
        run_sql_file(SQL / "model_addresses.sql"),
        grant("SELECT", "models_catalog_modelalias", "tenant", "operator", "auth", "dataplane"),
        grant("INSERT, UPDATE, DELETE", "models_catalog_modelalias", "operator"),
    ]
