"""Free credit that expires."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.expressions
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "ledger" / "sql"


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0019_confirmed'),
        ('tenants', '0006_automatic_suspension'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='CreditLot',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('source', models.CharField(choices=[('TOPPED_UP', 'Topped Up'), ('GRANTED', 'Granted'), ('RECEIVABLE', 'Receivable'), ('REVENUE', 'Revenue'), ('GRANTED_USAGE', 'Granted Usage'), ('PROMOTION', 'Promotion'), ('GOODWILL', 'Goodwill'), ('CASH_CLEARING', 'Cash Clearing'), ('STRIPE_CLEARING', 'Stripe Clearing'), ('PAYMENT_FEES', 'Payment Fees'), ('TAX_PAYABLE', 'Tax Payable'), ('OVERRUN_EXPENSE', 'Overrun Expense'), ('WAIVED_EXPENSE', 'Waived Expense'), ('UNBILLED_USAGE', 'Unbilled Usage')], help_text='Where it came from and goes back to.', max_length=24)),
                ('amount_nanos', models.BigIntegerField()),
                ('left_nanos', models.BigIntegerField()),
                ('expired_nanos', models.BigIntegerField(default=0)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.AddField(
            model_name='creditorder',
            name='expires_at',
            field=models.DateTimeField(blank=True, help_text='Of granted credit and goodwill.', null=True),
        ),
        migrations.AddField(
            model_name='welcomegrant',
            name='lasts_days',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, help_text='0: for ever.'),
        ),
        migrations.AlterField(
            model_name='ledgertransfer',
            name='kind',
            field=models.CharField(choices=[('USAGE', 'Usage'), ('TOP_UP', 'Top Up'), ('GRANT', 'Grant'), ('ADJUSTMENT', 'Adjustment'), ('REFUND', 'Refund'), ('REFUND_REVERSED', 'Refund Reversed'), ('CHARGEBACK', 'Chargeback'), ('REINSTATED', 'Reinstated'), ('PAYMENT_FEE', 'Payment Fee'), ('EXPIRY', 'Expiry'), ('PAYOUT', 'Payout'), ('SURPLUS', 'Surplus')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='creditorder',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at', None), models.Q(('expires_at__gt', models.F('ordered_at')), ('kind__in', ('GRANT', 'GOODWILL'))), _connector='OR'), name='creditorder_end_of_what_is_given'),
        ),
        migrations.AddField(
            model_name='creditlot',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddIndex(
            model_name='creditlot',
            index=models.Index(fields=['tenant', 'expires_at'], name='lot_tenant'),
        ),
        migrations.AddIndex(
            model_name='creditlot',
            index=models.Index(condition=models.Q(('expires_at__isnull', False), ('left_nanos__gt', 0)), fields=['expires_at'], name='lot_due'),
        ),
        migrations.AddConstraint(
            model_name='creditlot',
            constraint=models.CheckConstraint(condition=models.Q(('expired_nanos__gte', 0), ('left_nanos__gte', 0), ('amount_nanos__gte', django.db.models.expressions.CombinedExpression(models.F('left_nanos'), '+', models.F('expired_nanos')))), name='lot_parts_within_whole'),
        ),
        migrations.AddConstraint(
            model_name='creditlot',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__isnull', False), ('expired_nanos', 0), _connector='OR'), name='lot_without_end_never_expires'),
        ),
        migrations.AddConstraint(
            model_name='creditlot',
            constraint=models.CheckConstraint(condition=models.Q(('source__in', ('PROMOTION', 'GOODWILL'))), name='lot_source_known'),
        ),
        migrations.AddConstraint(
            model_name='creditlot',
            constraint=models.UniqueConstraint(condition=models.Q(('expires_at', None)), fields=('tenant',), name='lot_one_without_end'),
        ),
        run_sql_file(SQL / "lots.sql"),
        tenant_wall("quotas_creditlot", crossing=("operator",)),
        grant("SELECT", "quotas_creditlot", "tenant"),
        grant("SELECT, INSERT, UPDATE", "quotas_creditlot", "operator"),
    ]
