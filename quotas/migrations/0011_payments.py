"""Payments: top-ups, refunds, disputes, auto-recharge, and the inbox of what Stripe says about them."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

HERE = Path(__file__).resolve().parent.parent
OWNED = ["stripecustomer", "stripeoperation", "topup", "refund", "dispute", "disputemovement", "autorecharge"]
HOUSE = ["stripeevent", "pollcursor", "balancetransaction"]


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0010_cost_ceilings'),
        ('tenants', '0005_management_keys'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='AutoRecharge',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.tenant')),
                ('state', models.CharField(choices=[('OFF', 'Off'), ('ON', 'On'), ('PAUSED', 'Paused')], default='OFF', max_length=16)),
                ('threshold_nanos', models.BigIntegerField()),
                ('amount_nanos', models.BigIntegerField()),
                ('monthly_cap_nanos', models.BigIntegerField()),
                ('payment_method_id', models.CharField(blank=True, max_length=255)),
                ('method', models.CharField(blank=True, max_length=64)),
                ('declines', models.PositiveSmallIntegerField(default=0)),
                ('state_reason', models.CharField(blank=True, max_length=100)),
                ('method_at', models.DateTimeField(blank=True, null=True)),
                ('retry_at', models.DateTimeField(blank=True, null=True)),
                ('changed_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name='BalanceTransaction',
            fields=[
                ('id', models.CharField(max_length=255, primary_key=True, serialize=False)),
                ('type', models.CharField(max_length=64)),
                ('reporting_category', models.CharField(blank=True, max_length=64)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('fee_nanos', models.BigIntegerField()),
                ('source_id', models.CharField(blank=True, max_length=255)),
                ('created_at', models.DateTimeField()),
                ('available_at', models.DateTimeField()),
                ('fee_transfer_id', models.UUIDField(blank=True, null=True, unique=True)),
                ('transfer_id', models.UUIDField(blank=True, null=True, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name='Dispute',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('dispute_id', models.CharField(max_length=255, unique=True)),
                ('charge_id', models.CharField(max_length=255)),
                ('amount_nanos', models.BigIntegerField()),
                ('status', models.CharField(max_length=64)),
                ('reason', models.CharField(blank=True, max_length=64)),
                ('opened_at', models.DateTimeField()),
                ('evidence_due_at', models.DateTimeField(blank=True, null=True)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='DisputeMovement',
            fields=[
                ('balance_transaction_id', models.CharField(max_length=255, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('taken_nanos', models.BigIntegerField()),
                ('tax_nanos', models.BigIntegerField()),
                ('transfer_id', models.UUIDField(unique=True)),
                ('posted_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name='PollCursor',
            fields=[
                ('name', models.CharField(max_length=32, primary_key=True, serialize=False)),
                ('read_to', models.DateTimeField()),
                ('polled_at', models.DateTimeField()),
                ('error', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='Refund',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('tax_nanos', models.BigIntegerField()),
                ('gross_nanos', models.BigIntegerField()),
                ('reason', models.CharField(max_length=500)),
                ('state', models.CharField(choices=[('PENDING', 'Pending'), ('SUCCEEDED', 'Succeeded'), ('FAILED', 'Failed')], default='PENDING', max_length=16)),
                ('refund_id', models.CharField(blank=True, max_length=255, null=True, unique=True)),
                ('failure_code', models.CharField(blank=True, max_length=100)),
                ('ordered_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('transfer_id', models.UUIDField(unique=True)),
                ('reversal_id', models.UUIDField(blank=True, null=True, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name='StripeCustomer',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.tenant')),
                ('customer_id', models.CharField(max_length=255, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name='StripeEvent',
            fields=[
                ('id', models.CharField(max_length=255, primary_key=True, serialize=False)),
                ('type', models.CharField(max_length=100)),
                ('object_id', models.CharField(blank=True, max_length=255)),
                ('account', models.CharField(blank=True, max_length=255)),
                ('api_version', models.CharField(blank=True, max_length=64)),
                ('payload', models.JSONField()),
                ('source', models.CharField(choices=[('WEBHOOK', 'Webhook'), ('POLLER', 'Poller')], max_length=16)),
                ('created_at', models.DateTimeField()),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('state', models.CharField(choices=[('RECEIVED', 'Received'), ('PROCESSED', 'Processed'), ('IGNORED', 'Ignored'), ('FAILED', 'Failed')], default='RECEIVED', max_length=16)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('error', models.CharField(blank=True, max_length=500)),
                ('processed_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='StripeOperation',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('CUSTOMER', 'Customer'), ('CHECKOUT', 'Checkout'), ('EXPIRE_CHECKOUT', 'Expire Checkout'), ('SETUP', 'Setup'), ('RECHARGE', 'Recharge'), ('CANCEL_INTENT', 'Cancel Intent'), ('REFUND', 'Refund'), ('INVOICE', 'Invoice'), ('INVOICE_ITEM', 'Invoice Item'), ('FINALIZE_INVOICE', 'Finalize Invoice'), ('CREDIT_NOTE', 'Credit Note')], max_length=24)),
                ('subject_id', models.UUIDField(blank=True, null=True)),
                ('parameters', models.JSONField()),
                ('state', models.CharField(choices=[('PENDING', 'Pending'), ('DONE', 'Done'), ('REFUSED', 'Refused'), ('ABANDONED', 'Abandoned')], default='PENDING', max_length=16)),
                ('object_id', models.CharField(blank=True, max_length=255)),
                ('error_code', models.CharField(blank=True, max_length=100)),
                ('error_text', models.CharField(blank=True, max_length=500)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='TopUp',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('source', models.CharField(choices=[('CHECKOUT', 'Checkout'), ('RECHARGE', 'Recharge'), ('BANK', 'Bank')], max_length=16)),
                ('amount_nanos', models.BigIntegerField()),
                ('state', models.CharField(choices=[('OPEN', 'Open'), ('PROCESSING', 'Processing'), ('ACTION_NEEDED', 'Action Needed'), ('PAID', 'Paid'), ('FAILED', 'Failed'), ('EXPIRED', 'Expired')], default='OPEN', max_length=16)),
                ('gross_nanos', models.BigIntegerField(blank=True, null=True)),
                ('tax_nanos', models.BigIntegerField(blank=True, null=True)),
                ('session_id', models.CharField(blank=True, max_length=255, null=True, unique=True)),
                ('payment_intent_id', models.CharField(blank=True, max_length=255, null=True, unique=True)),
                ('charge_id', models.CharField(blank=True, max_length=255)),
                ('method', models.CharField(blank=True, max_length=64)),
                ('pay_url', models.URLField(blank=True, max_length=2000)),
                ('receipt_url', models.URLField(blank=True, max_length=2000)),
                ('invoice_url', models.URLField(blank=True, max_length=2000)),
                ('failure_code', models.CharField(blank=True, max_length=100)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('checked_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('transfer_id', models.UUIDField(blank=True, null=True, unique=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='ledgeraccount',
            name='account_kind_known',
        ),
        migrations.AlterField(
            model_name='ledgeraccount',
            name='kind',
            field=models.CharField(choices=[('TOPPED_UP', 'Topped Up'), ('GRANTED', 'Granted'), ('RECEIVABLE', 'Receivable'), ('REVENUE', 'Revenue'), ('GRANTED_USAGE', 'Granted Usage'), ('PROMOTION', 'Promotion'), ('GOODWILL', 'Goodwill'), ('CASH_CLEARING', 'Cash Clearing'), ('STRIPE_CLEARING', 'Stripe Clearing'), ('PAYMENT_FEES', 'Payment Fees'), ('TAX_PAYABLE', 'Tax Payable'), ('OVERRUN_EXPENSE', 'Overrun Expense'), ('WAIVED_EXPENSE', 'Waived Expense'), ('UNBILLED_USAGE', 'Unbilled Usage')], max_length=24),
        ),
        migrations.AlterField(
            model_name='ledgertransfer',
            name='kind',
            field=models.CharField(choices=[('USAGE', 'Usage'), ('TOP_UP', 'Top Up'), ('GRANT', 'Grant'), ('ADJUSTMENT', 'Adjustment'), ('REFUND', 'Refund'), ('REFUND_REVERSED', 'Refund Reversed'), ('CHARGEBACK', 'Chargeback'), ('REINSTATED', 'Reinstated'), ('PAYMENT_FEE', 'Payment Fee'), ('PAYOUT', 'Payout')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='ledgeraccount',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['TOPPED_UP', 'GRANTED', 'RECEIVABLE', 'REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING', 'PAYMENT_FEES', 'TAX_PAYABLE', 'OVERRUN_EXPENSE', 'WAIVED_EXPENSE', 'UNBILLED_USAGE'])), name='account_kind_known'),
        ),
        migrations.AddField(
            model_name='autorecharge',
            name='changed_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='balancetransaction',
            index=models.Index(fields=['created_at'], name='balancetransaction_created'),
        ),
        migrations.AddIndex(
            model_name='balancetransaction',
            index=models.Index(fields=['source_id'], name='balancetransaction_source'),
        ),
        migrations.AddField(
            model_name='dispute',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='disputemovement',
            name='dispute',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='movements', to='quotas.dispute'),
        ),
        migrations.AddField(
            model_name='disputemovement',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='refund',
            name='ordered_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='refund',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddConstraint(
            model_name='stripecustomer',
            constraint=models.CheckConstraint(condition=models.Q(('customer_id', ''), _negated=True), name='stripecustomer_id_given'),
        ),
        migrations.AddIndex(
            model_name='stripeevent',
            index=models.Index(fields=['-created_at'], name='stripeevent_newest'),
        ),
        migrations.AddIndex(
            model_name='stripeevent',
            index=models.Index(fields=['object_id'], name='stripeevent_object'),
        ),
        migrations.AddIndex(
            model_name='stripeevent',
            index=models.Index(condition=models.Q(('state__in', ['RECEIVED', 'FAILED'])), fields=['next_attempt_at'], name='stripeevent_due'),
        ),
        migrations.AddConstraint(
            model_name='stripeevent',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['RECEIVED', 'PROCESSED', 'IGNORED', 'FAILED'])), name='stripeevent_state_known'),
        ),
        migrations.AddConstraint(
            model_name='stripeevent',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state__in', ['PROCESSED', 'IGNORED']), _negated=True), ('processed_at__isnull', False), _connector='OR'), name='stripeevent_processed'),
        ),
        migrations.AddField(
            model_name='stripeoperation',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='topup',
            name='created_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='topup',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='refund',
            name='top_up',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='refunds', to='quotas.topup'),
        ),
        migrations.AddField(
            model_name='dispute',
            name='top_up',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='quotas.topup'),
        ),
        migrations.AddConstraint(
            model_name='autorecharge',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['OFF', 'ON', 'PAUSED'])), name='autorecharge_state_known'),
        ),
        migrations.AddConstraint(
            model_name='autorecharge',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), ('amount_nanos__lte', 1000000000000000), ('threshold_nanos__gte', 0)), name='autorecharge_amounts'),
        ),
        migrations.AddConstraint(
            model_name='autorecharge',
            constraint=models.CheckConstraint(condition=models.Q(('monthly_cap_nanos__gte', models.F('amount_nanos'))), name='autorecharge_cap_allows_one'),
        ),
        migrations.AddConstraint(
            model_name='autorecharge',
            constraint=models.CheckConstraint(condition=models.Q(('state', 'OFF'), models.Q(('payment_method_id', ''), _negated=True), _connector='OR'), name='autorecharge_has_method'),
        ),
        migrations.AddConstraint(
            model_name='autorecharge',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'ON'), _negated=True), ('declines__lt', 3), _connector='OR'), name='autorecharge_declined_thrice'),
        ),
        migrations.AddConstraint(
            model_name='disputemovement',
            constraint=models.CheckConstraint(condition=models.Q(('taken_nanos', 0), _negated=True), name='disputemovement_moves'),
        ),
        migrations.AddConstraint(
            model_name='disputemovement',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('taken_nanos__gt', 0), ('tax_nanos__gte', 0), ('tax_nanos__lte', models.F('taken_nanos'))), models.Q(('taken_nanos__lt', 0), ('tax_nanos__gte', models.F('taken_nanos')), ('tax_nanos__lte', 0)), _connector='OR'), name='disputemovement_tax_within'),
        ),
        migrations.AddIndex(
            model_name='stripeoperation',
            index=models.Index(fields=['tenant', '-id'], name='stripeoperation_tenant'),
        ),
        migrations.AddIndex(
            model_name='stripeoperation',
            index=models.Index(condition=models.Q(('state', 'PENDING')), fields=['created_at'], name='stripeoperation_pending'),
        ),
        migrations.AddConstraint(
            model_name='stripeoperation',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['CUSTOMER', 'CHECKOUT', 'EXPIRE_CHECKOUT', 'SETUP', 'RECHARGE', 'CANCEL_INTENT', 'REFUND', 'INVOICE', 'INVOICE_ITEM', 'FINALIZE_INVOICE', 'CREDIT_NOTE'])), name='stripeoperation_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='stripeoperation',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', True), ('state', 'PENDING')), models.Q(('finished_at__isnull', False), ('state', 'DONE'), models.Q(('object_id', ''), _negated=True)), models.Q(('finished_at__isnull', False), ('state', 'REFUSED'), models.Q(('error_text', ''), _negated=True)), models.Q(('finished_at__isnull', False), ('state', 'ABANDONED')), _connector='OR'), name='stripeoperation_ended'),
        ),
        migrations.AddConstraint(
            model_name='stripeoperation',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ['REFUSED', 'ABANDONED']), _negated=True), fields=('kind', 'subject_id'), name='stripeoperation_once_a_subject'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(fields=['tenant', '-id'], name='topup_tenant'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(condition=models.Q(('charge_id', ''), _negated=True), fields=['charge_id'], name='topup_charge'),
        ),
        migrations.AddIndex(
            model_name='topup',
            index=models.Index(condition=models.Q(('state__in', ('OPEN', 'PROCESSING', 'ACTION_NEEDED'))), fields=['created_at'], name='topup_open'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.UniqueConstraint(fields=('id', 'tenant', 'currency'), name='topup_id_tenant_currency'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('source__in', ['CHECKOUT', 'RECHARGE', 'BANK'])), name='topup_source_known'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['OPEN', 'PROCESSING', 'ACTION_NEEDED', 'PAID', 'FAILED', 'EXPIRED'])), name='topup_state_known'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), ('amount_nanos__lte', 1000000000000000)), name='topup_amount_bounded'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', False), ('state', 'PAID'), ('transfer_id__isnull', False)), models.Q(models.Q(('state', 'PAID'), _negated=True), ('transfer_id__isnull', True)), _connector='OR'), name='topup_credited_when_paid'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'PAID'), _negated=True), models.Q(('gross_nanos', django.db.models.expressions.CombinedExpression(models.F('amount_nanos'), '+', models.F('tax_nanos'))), ('tax_nanos__gte', 0)), _connector='OR'), name='topup_net_of_tax'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('state__in', ('OPEN', 'PROCESSING', 'ACTION_NEEDED'))), models.Q(models.Q(('state__in', ('OPEN', 'PROCESSING', 'ACTION_NEEDED')), _negated=True), ('ended_at__isnull', False)), _connector='OR'), name='topup_ended'),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.UniqueConstraint(condition=models.Q(('source', 'RECHARGE'), ('state__in', ('OPEN', 'PROCESSING', 'ACTION_NEEDED'))), fields=('tenant',), name='topup_one_recharge'),
        ),
        migrations.AddIndex(
            model_name='refund',
            index=models.Index(fields=['tenant', '-id'], name='refund_tenant'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['PENDING', 'SUCCEEDED', 'FAILED'])), name='refund_state_known'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gte', 0), ('gross_nanos__gt', 0), ('tax_nanos__gte', 0), ('gross_nanos', django.db.models.expressions.CombinedExpression(models.F('amount_nanos'), '+', models.F('tax_nanos')))), name='refund_amounts'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('reversal_id__isnull', False), ('state', 'FAILED')), models.Q(models.Q(('state', 'FAILED'), _negated=True), ('reversal_id__isnull', True)), _connector='OR'), name='refund_reversed_when_failed'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('state', 'PENDING')), models.Q(models.Q(('state', 'PENDING'), _negated=True), ('ended_at__isnull', False)), _connector='OR'), name='refund_ended'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='refund_reason_given'),
        ),
        migrations.AddIndex(
            model_name='dispute',
            index=models.Index(fields=['tenant', '-id'], name='dispute_tenant'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.UniqueConstraint(fields=('id', 'tenant', 'currency'), name='dispute_id_tenant_currency'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='dispute_amount_positive'),
        ),
        composite_foreign_key("quotas_topup", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_topup", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_refund", "top_up_id, tenant_id, currency", "quotas_topup", "id, tenant_id, currency"),
        composite_foreign_key("quotas_refund", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_refund", "reversal_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_dispute", "top_up_id, tenant_id, currency", "quotas_topup", "id, tenant_id, currency"),
        composite_foreign_key("quotas_disputemovement", "dispute_id, tenant_id, currency", "quotas_dispute", "id, tenant_id, currency"),
        composite_foreign_key("quotas_disputemovement", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_balancetransaction", "fee_transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        composite_foreign_key("quotas_balancetransaction", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        run_sql_file(HERE / "ledger" / "sql" / "payments.sql"),
        *(tenant_wall(f"quotas_{table}", crossing=("operator",)) for table in OWNED),
        # Members start payments and change their recharge; what became of a payment is written by workers.
        grant("SELECT", [f"quotas_{table}" for table in OWNED], "tenant"),
        grant("INSERT", ["quotas_stripeoperation", "quotas_topup"], "tenant"),
        grant("INSERT, UPDATE", "quotas_autorecharge", "tenant"),
        grant("SELECT, INSERT, UPDATE", [f"quotas_{table}" for table in OWNED + HOUSE], "operator"),
    ]
