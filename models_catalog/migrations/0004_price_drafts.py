"""Who drafted and published a price, whom it makes pay more, and that what operators publish lies ahead."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [
        ("models_catalog", "0003_pool_costs"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='priceversion',
            name='created_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='published_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='priceversion',
            index=models.Index(condition=models.Q(('published_at', None)), fields=['model', 'currency'], name='price_drafts'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(('published_by__isnull', True), ('published_at__isnull', False), _connector='OR'), name='price_publisher_published'),
        ),
        migrations.CreateModel(
            name='PriceNotice',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('NEW_PRICE', 'New Price'), ('PRIVATE_END', 'Private End'), ('WITHDRAWN', 'Withdrawn')], max_length=16)),
                ('takes_effect_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('next_attempt_at', models.DateTimeField()),
                ('mailed_at', models.DateTimeField(blank=True, null=True)),
                ('mails', models.PositiveSmallIntegerField(default=0)),
                ('before', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.priceversion')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.priceversion')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('version', 'tenant', 'kind', 'takes_effect_at'), name='pricenotice_once'), models.CheckConstraint(condition=models.Q(('kind__in', ['NEW_PRICE', 'PRIVATE_END', 'WITHDRAWN'])), name='pricenotice_kind_known')],
                'indexes': [models.Index(condition=models.Q(('mailed_at__isnull', True)), fields=['next_attempt_at'], name='pricenotice_due')],
            },
        ),
        run_sql_file(SQL / "price_drafts.sql"),
        tenant_wall("models_catalog_pricenotice", crossing=("operator",)),
        grant("SELECT", "models_catalog_pricenotice", "tenant", "operator"),
        grant("INSERT, UPDATE (mailed_at, mails, next_attempt_at)", "models_catalog_pricenotice", "operator"),
    ]
