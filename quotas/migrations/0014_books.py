"""Closed months with their trial balances, and the order of all postings by their moment."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "books" / "sql"
ACCOUNT_KINDS = ['TOPPED_UP', 'GRANTED', 'RECEIVABLE', 'REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING', 'PAYMENT_FEES', 'TAX_PAYABLE', 'OVERRUN_EXPENSE', 'WAIVED_EXPENSE', 'UNBILLED_USAGE']


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0013_postpaid'),
        ('tenants', '0006_automatic_suspension'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='ClosedMonth',
            fields=[
                ('month', models.DateField(primary_key=True, serialize=False)),
                ('closed_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('reason', models.CharField(max_length=500)),
                ('closed_by', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(condition=models.Q(('month__day', 1)), name='closedmonth_first_day'),
                    models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='closedmonth_reason_given'),
                ],
            },
        ),
        migrations.CreateModel(
            name='ClosedBalance',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('account', models.CharField(choices=[('TOPPED_UP', 'Topped Up'), ('GRANTED', 'Granted'), ('RECEIVABLE', 'Receivable'), ('REVENUE', 'Revenue'), ('GRANTED_USAGE', 'Granted Usage'), ('PROMOTION', 'Promotion'), ('GOODWILL', 'Goodwill'), ('CASH_CLEARING', 'Cash Clearing'), ('STRIPE_CLEARING', 'Stripe Clearing'), ('PAYMENT_FEES', 'Payment Fees'), ('TAX_PAYABLE', 'Tax Payable'), ('OVERRUN_EXPENSE', 'Overrun Expense'), ('WAIVED_EXPENSE', 'Waived Expense'), ('UNBILLED_USAGE', 'Unbilled Usage')], max_length=24)),
                ('opening_nanos', models.BigIntegerField()),
                ('debits_nanos', models.BigIntegerField()),
                ('credits_nanos', models.BigIntegerField()),
                ('closing_nanos', models.BigIntegerField()),
                ('month', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='balances', to='quotas.closedmonth')),
            ],
            options={
                'constraints': [
                    models.UniqueConstraint(fields=('month', 'currency', 'account'), name='closedbalance_once'),
                    models.CheckConstraint(condition=models.Q(('account__in', ACCOUNT_KINDS)), name='closedbalance_account_known'),
                    models.CheckConstraint(condition=models.Q(('credits_nanos__gte', 0), ('debits_nanos__gte', 0)), name='closedbalance_sides_positive'),
                    models.CheckConstraint(condition=models.Q(('closing_nanos', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('opening_nanos'), '+', models.F('credits_nanos')), '-', models.F('debits_nanos')))), name='closedbalance_adds_up'),
                ],
            },
        ),
        migrations.AddIndex(
            model_name='ledgertransfer',
            index=models.Index(fields=['posted_at', 'id'], name='transfer_posted'),
        ),
        migrations.AddIndex(
            model_name='ledgertransfer',
            index=models.Index(condition=models.Q(('revision__gt', 1)), fields=['posted_at'], name='transfer_corrections'),
        ),
        run_sql_file(SQL / "books.sql"),
        grant("SELECT, INSERT", ["quotas_closedmonth", "quotas_closedbalance"], "operator"),
        # Whoever posts looks whether its month is closed.
        grant("SELECT", "quotas_closedmonth", "dataplane"),
    ]
