"""Bills as signed files, in parts."""

from pathlib import Path

import django.db.models.deletion
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "bundles" / "sql"


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0015_feeds'),
        ('tenants', '0006_automatic_suspension'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='BillBundle',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('from_at', models.DateTimeField()),
                ('to_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('WAITING', 'Waiting'), ('RUNNING', 'Running'), ('READY', 'Ready'), ('FAILED', 'Failed')], default='WAITING', max_length=16)),
                ('run', models.PositiveSmallIntegerField(default=0)),
                ('lines_expected', models.BigIntegerField(default=0)),
                ('lines_done', models.BigIntegerField(default=0)),
                ('created_at', models.DateTimeField()),
                ('touched_at', models.DateTimeField(help_text='When it last got further.')),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('made_at', models.DateTimeField(blank=True, null=True)),
                ('complete_to', models.DateTimeField(blank=True, null=True)),
                ('charged_nanos', models.BigIntegerField(blank=True, null=True)),
                ('size_bytes', models.BigIntegerField(default=0)),
                ('sha256', models.CharField(blank=True, max_length=64)),
                ('key_id', models.CharField(blank=True, max_length=32)),
                ('failure', models.CharField(blank=True, choices=[('NOT_FINISHED', 'Not Finished'), ('TOO_LARGE', 'Too Large'), ('NO_KEY', 'No Key'), ('DIFFERS', 'Differs')], max_length=16)),
                ('asked_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='BillBundlePart',
            fields=[
                ('pk', models.CompositePrimaryKey('bundle_id', 'ordinal', blank=True, editable=False, primary_key=True, serialize=False)),
                ('ordinal', models.PositiveIntegerField()),
                ('content', models.BinaryField()),
                ('bundle', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='quotas.billbundle')),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.AddIndex(
            model_name='billbundle',
            index=models.Index(fields=['tenant', '-id'], name='bundle_tenant'),
        ),
        migrations.AddIndex(
            model_name='billbundle',
            index=models.Index(condition=models.Q(('state__in', ('WAITING', 'RUNNING'))), fields=['touched_at'], name='bundle_open'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.UniqueConstraint(fields=('id', 'tenant'), name='bundle_id_tenant'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('WAITING', 'RUNNING'))), fields=('tenant',), name='bundle_one_open'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state__in', ['WAITING', 'RUNNING', 'READY', 'FAILED']), ('failure', ''), models.Q(('state', 'FAILED'), _negated=True)), models.Q(('failure__in', ['NOT_FINISHED', 'TOO_LARGE', 'NO_KEY', 'DIFFERS']), ('state', 'FAILED')), _connector='OR'), name='bundle_state_known'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.CheckConstraint(condition=models.Q(('from_at__lt', models.F('to_at'))), name='bundle_period'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', True), ('state__in', ('WAITING', 'RUNNING'))), models.Q(models.Q(('state__in', ('WAITING', 'RUNNING')), _negated=True), ('finished_at__isnull', False)), _connector='OR'), name='bundle_finished_with_time'),
        ),
        migrations.AddConstraint(
            model_name='billbundle',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'READY'), _negated=True), models.Q(('charged_nanos__isnull', False), ('complete_to__isnull', False), ('made_at__isnull', False), ('sha256__regex', '^[0-9a-f]{64}$'), ('size_bytes__gt', 0), models.Q(('key_id', ''), _negated=True)), _connector='OR'), name='bundle_ready_whole'),
        ),
        migrations.AddIndex(
            model_name='billbundlepart',
            index=models.Index(fields=['tenant'], name='bundlepart_tenant'),
        ),
        composite_foreign_key("quotas_billbundle", "tenant_id, currency", "tenants_tenant", "id, currency"),
        run_sql_file(SQL / "bundles.sql"),
        *(tenant_wall(table, crossing=("operator",)) for table in ("quotas_billbundle", "quotas_billbundlepart")),
        # Members ask for a bundle and fetch it; workers make it and take it away again.
        grant("SELECT", ["quotas_billbundle", "quotas_billbundlepart"], "tenant", "operator"),
        grant("INSERT", "quotas_billbundle", "tenant"),
        grant("UPDATE, DELETE", "quotas_billbundle", "operator"),
        grant("INSERT, DELETE", "quotas_billbundlepart", "operator"),
    ]
