"""Prices replayed on real usage."""

import django.db.models.deletion
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0008_business"),
        ("models_catalog", "0004_price_drafts"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='PriceReplay',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('state', models.CharField(choices=[('WAITING', 'Waiting'), ('RUNNING', 'Running'), ('DONE', 'Done'), ('OUTDATED', 'Outdated'), ('FAILED', 'Failed')], default='WAITING', max_length=16)),
                ('content_sha256', models.CharField(max_length=64)),
                ('from_at', models.DateTimeField()),
                ('to_at', models.DateTimeField()),
                ('priced_at', models.DateTimeField()),
                ('days', models.PositiveSmallIntegerField()),
                ('days_done', models.PositiveSmallIntegerField(default=0)),
                ('result', models.JSONField(blank=True, default=dict)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField()),
                ('touched_at', models.DateTimeField(help_text='When it last got further.')),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('asked_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='models_catalog.priceversion')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('state__in', ('WAITING', 'RUNNING'))), fields=['touched_at'], name='replay_open')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state__in', ('WAITING', 'RUNNING'))), fields=('version',), name='replay_one_open'), models.CheckConstraint(condition=models.Q(('state__in', ['WAITING', 'RUNNING', 'DONE', 'OUTDATED', 'FAILED'])), name='replay_state_known'), models.CheckConstraint(condition=models.Q(('days_done__lte', models.F('days')), ('from_at__lt', models.F('to_at'))), name='replay_progress'), models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', True), ('state__in', ('WAITING', 'RUNNING'))), models.Q(models.Q(('state__in', ('WAITING', 'RUNNING')), _negated=True), ('finished_at__isnull', False)), _connector='OR'), name='replay_finished_with_time')],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE quotas_pricereplay ADD CONSTRAINT quotas_pricereplay_version_fk FOREIGN KEY (version_id) "
            "REFERENCES models_catalog_priceversion (id) ON DELETE CASCADE",
            migrations.RunSQL.noop,
        ),
        # What others spend is in it: operators alone read it.
        grant("SELECT, INSERT, UPDATE, DELETE", "quotas_pricereplay", "operator"),
    ]
