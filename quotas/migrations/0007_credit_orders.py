"""Credit that operators give or take, above a limit with two of them."""

from pathlib import Path

import django.db.models.deletion
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

HERE = Path(__file__).resolve().parent.parent

ACCOUNT_KINDS = ['TOPPED_UP', 'GRANTED', 'RECEIVABLE', 'REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING', 'PAYMENT_FEES', 'OVERRUN_EXPENSE', 'UNBILLED_USAGE']


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0006_admission_within_limits'),
        ('tenants', '0004_audit'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.AlterField(
            model_name='ledgeraccount',
            name='kind',
            field=models.CharField(choices=[(kind, kind.replace('_', ' ').title()) for kind in ACCOUNT_KINDS], max_length=24),
        ),
        migrations.RemoveConstraint(model_name='ledgeraccount', name='account_kind_known'),
        migrations.AddConstraint(
            model_name='ledgeraccount',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ACCOUNT_KINDS)), name='account_kind_known'),
        ),
        migrations.CreateModel(
            name='CreditOrder',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('kind', models.CharField(choices=[('GRANT', 'Grant'), ('GOODWILL', 'Goodwill'), ('TAKE_BACK', 'Take Back'), ('CREDIT_LINE', 'Credit Line')], max_length=16)),
                ('amount_nanos', models.BigIntegerField()),
                ('limit_nanos', models.BigIntegerField()),
                ('reason', models.CharField(max_length=500)),
                ('ordered_by', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('ordered_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('WAITING', 'Waiting'), ('POSTED', 'Posted'), ('REFUSED', 'Refused'), ('WITHDRAWN', 'Withdrawn')], default='WAITING', max_length=16)),
                ('decided_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_reason', models.CharField(blank=True, max_length=500)),
                ('transfer_id', models.UUIDField(blank=True, null=True, unique=True)),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', '-id'], name='creditorder_tenant'), models.Index(fields=['ordered_by', 'ordered_at'], name='creditorder_by'), models.Index(condition=models.Q(('state', 'WAITING')), fields=['ordered_at'], name='creditorder_waiting')],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['GRANT', 'GOODWILL', 'TAKE_BACK', 'CREDIT_LINE'])), name='creditorder_kind_known'), models.CheckConstraint(condition=models.Q(('state__in', ['WAITING', 'POSTED', 'REFUSED', 'WITHDRAWN'])), name='creditorder_state_known'), models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), models.Q(('amount_nanos', 0), ('kind', 'CREDIT_LINE')), _connector='OR'), name='creditorder_amount_positive'), models.CheckConstraint(condition=models.Q(('amount_nanos__lte', 1000000000000000)), name='creditorder_amount_bounded'), models.CheckConstraint(condition=models.Q(('limit_nanos__gte', 0)), name='creditorder_limit_positive'), models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='creditorder_reason_given'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('state', 'WAITING')), models.Q(('decided_at__isnull', False), ('state', 'POSTED')), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), ('state__in', ['REFUSED', 'WITHDRAWN'])), _connector='OR'), name='creditorder_decided'), models.CheckConstraint(condition=models.Q(('decided_by__isnull', True), models.Q(('decided_by', models.F('ordered_by')), ('state', 'WITHDRAWN')), models.Q(models.Q(('state', 'WITHDRAWN'), _negated=True), models.Q(('decided_by', models.F('ordered_by')), _negated=True)), _connector='OR'), name='creditorder_decided_by_another'), models.CheckConstraint(condition=models.Q(models.Q(('state', 'POSTED'), _negated=True), ('amount_nanos__lte', models.F('limit_nanos')), ('decided_by__isnull', False), _connector='OR'), name='creditorder_above_limit_by_two'), models.CheckConstraint(condition=models.Q(models.Q(('state', 'POSTED'), ('transfer_id__isnull', False), models.Q(('kind', 'CREDIT_LINE'), _negated=True)), models.Q(('transfer_id__isnull', True), models.Q(models.Q(('state', 'POSTED'), _negated=True), ('kind', 'CREDIT_LINE'), _connector='OR')), _connector='OR'), name='creditorder_posted_once')],
            },
        ),
        composite_foreign_key("quotas_creditorder", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_creditorder", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        run_sql_file(HERE / "ledger" / "sql" / "orders.sql"),
        # Why an operator gave something is between operators; the organization sees it in its statement.
        tenant_wall("quotas_creditorder", crossing=("operator",)),
        grant("SELECT, INSERT", "quotas_creditorder", "operator"),
        grant(
            "UPDATE (state, decided_by_id, decided_at, decision_reason, transfer_id)", "quotas_creditorder", "operator"
        ),
    ]
