import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
from django.db import migrations, models

from portal.kit.migrations import CreatePartitionedModel, LockTimeout


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('models_catalog', '0002_guards_and_walls'),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='Wallet',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='wallet', serialize=False, to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('paid_nanos', models.BigIntegerField(default=0)),
                ('granted_nanos', models.BigIntegerField(default=0)),
                ('receivable_nanos', models.BigIntegerField(default=0)),
                ('pending_nanos', models.BigIntegerField(default=0)),
                ('overdraft_nanos', models.BigIntegerField(default=0)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('paid_nanos__gte', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('pending_nanos'), '-', models.F('granted_nanos')), '-', models.F('overdraft_nanos')))), name='wallet_never_overdrawn'), models.CheckConstraint(condition=models.Q(('granted_nanos__gte', 0)), name='wallet_granted_positive'), models.CheckConstraint(condition=models.Q(('pending_nanos__gte', 0)), name='wallet_pending_positive'), models.CheckConstraint(condition=models.Q(('overdraft_nanos__gte', 0)), name='wallet_overdraft_positive'), models.CheckConstraint(condition=models.Q(('receivable_nanos__lte', 0)), name='wallet_receivable_owed')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='LedgerAccount',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('kind', models.CharField(choices=[('TOPPED_UP', 'Topped Up'), ('GRANTED', 'Granted'), ('RECEIVABLE', 'Receivable'), ('REVENUE', 'Revenue'), ('GRANTED_USAGE', 'Granted Usage'), ('PROMOTION', 'Promotion'), ('CASH_CLEARING', 'Cash Clearing'), ('STRIPE_CLEARING', 'Stripe Clearing'), ('OVERRUN_EXPENSE', 'Overrun Expense'), ('UNBILLED_USAGE', 'Unbilled Usage')], max_length=24)),
                ('currency', models.CharField(max_length=3)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'kind', 'currency'), name='account_once', nulls_distinct=False), models.UniqueConstraint(fields=('id', 'currency'), name='account_id_currency'), models.CheckConstraint(condition=models.Q(models.Q(('kind__in', ('TOPPED_UP', 'GRANTED', 'RECEIVABLE')), ('tenant__isnull', False)), models.Q(models.Q(('kind__in', ('TOPPED_UP', 'GRANTED', 'RECEIVABLE')), _negated=True), ('tenant__isnull', True)), _connector='OR'), name='account_owner_fits_kind'), models.CheckConstraint(condition=models.Q(('kind__in', ['TOPPED_UP', 'GRANTED', 'RECEIVABLE', 'REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'CASH_CLEARING', 'STRIPE_CLEARING', 'OVERRUN_EXPENSE', 'UNBILLED_USAGE'])), name='account_kind_known')],
                'indexes': [],
            },
        ),
        migrations.CreateModel(
            name='LedgerTransfer',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('USAGE', 'Usage'), ('TOP_UP', 'Top Up'), ('GRANT', 'Grant'), ('ADJUSTMENT', 'Adjustment')], max_length=16)),
                ('tenant', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('request_id', models.UUIDField(blank=True, null=True)),
                ('revision', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('payload_sha256', models.BinaryField(max_length=32)),
                ('posted_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'posted_at'], name='transfer_tenant_posted')],
                'constraints': [models.UniqueConstraint(fields=('id', 'currency'), name='transfer_id_currency'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'USAGE'), ('request_id__isnull', False), ('revision__isnull', False)), models.Q(models.Q(('kind', 'USAGE'), _negated=True), ('request_id__isnull', True), ('revision__isnull', True)), _connector='OR'), name='transfer_request_fits_kind')],
            },
        ),
        migrations.CreateModel(
            name='LedgerEntry',
            fields=[
                ('pk', models.CompositePrimaryKey('transfer_id', 'account_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('transfer', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='quotas.ledgertransfer')),
                ('account', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.ledgeraccount')),
                ('tenant', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nanos', 0), _negated=True), name='entry_not_zero')],
                'indexes': [],
            },
        ),
        CreatePartitionedModel(
            partition_by='id',
            name='InferenceRequest',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('api_key', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('model', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
                ('price_version', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.priceversion')),
                ('price_window', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.pricewindow')),
                ('service_tier', models.CharField(choices=[('standard', 'Standard'), ('batch', 'Batch'), ('reserved', 'Reserved')], max_length=16)),
                ('endpoint', models.CharField(max_length=32)),
                ('is_stream', models.BooleanField()),
                ('choices', models.PositiveSmallIntegerField(default=1)),
                ('prompt_bound_tokens', models.PositiveIntegerField()),
                ('output_cap_tokens', models.PositiveIntegerField(help_text='Per choice, as sent to the backend.')),
                ('payload_sha256', models.BinaryField(max_length=32)),
                ('admitted_at', models.DateTimeField()),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'id'], name='request_tenant_id')],
                'constraints': [models.UniqueConstraint(fields=('id', 'tenant'), name='request_id_tenant')],
            },
        ),
        CreatePartitionedModel(
            partition_by='id',
            name='Attempt',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('request', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='attempts', to='quotas.inferencerequest')),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('deployment', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.deployment')),
                ('ordinal', models.PositiveSmallIntegerField()),
                ('choice_index', models.PositiveSmallIntegerField(default=0)),
                ('started_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('outcome', models.CharField(blank=True, choices=[('COMPLETED', 'Completed'), ('CLIENT_GONE', 'Client Gone'), ('BACKEND_REFUSED', 'Backend Refused'), ('BACKEND_FAILED', 'Backend Failed'), ('BACKEND_TIMEOUT', 'Backend Timeout'), ('UNREACHABLE', 'Unreachable'), ('STALE', 'Stale'), ('CUT', 'Cut'), ('LOST', 'Lost')], max_length=16, null=True)),
                ('http_status', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('ttft_ms', models.PositiveIntegerField(blank=True, null=True)),
                ('duration_ms', models.PositiveIntegerField(blank=True, null=True)),
                ('wire_id', models.CharField(blank=True, help_text='The id the backend answered with.', max_length=200)),
                ('prompt_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('completion_tokens', models.PositiveIntegerField(blank=True, null=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('outcome__isnull', True)), models.Q(('ended_at__isnull', False), ('outcome__in', ['COMPLETED', 'CLIENT_GONE', 'BACKEND_REFUSED', 'BACKEND_FAILED', 'BACKEND_TIMEOUT', 'UNREACHABLE', 'STALE', 'CUT', 'LOST'])), _connector='OR'), name='attempt_ends_with_outcome')],
                'indexes': [],
            },
        ),
        CreatePartitionedModel(
            partition_by='request_id',
            name='Hold',
            fields=[
                ('request', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='hold', serialize=False, to='quotas.inferencerequest')),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('state', models.CharField(choices=[('PENDING', 'Pending'), ('POSTED', 'Posted'), ('VOIDED', 'Voided'), ('EXPIRED', 'Expired')], default='PENDING', max_length=16)),
                ('lease_until', models.DateTimeField()),
                ('checkpoint_at', models.DateTimeField(blank=True, null=True)),
                ('checkpoint_prompt_tokens', models.PositiveIntegerField(default=0)),
                ('checkpoint_cached_tokens', models.PositiveIntegerField(default=0)),
                ('checkpoint_completion_tokens', models.PositiveIntegerField(default=0)),
                ('checkpoint_reasoning_tokens', models.PositiveIntegerField(default=0)),
                ('resolved_at', models.DateTimeField(blank=True, null=True)),
                ('resolved_by', models.CharField(blank=True, max_length=16)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('state', 'PENDING')), fields=['tenant'], name='hold_pending')],
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nanos__gte', 0)), name='hold_amount_positive'), models.CheckConstraint(condition=models.Q(('state__in', ['PENDING', 'POSTED', 'VOIDED', 'EXPIRED'])), name='hold_state_known'), models.CheckConstraint(condition=models.Q(models.Q(('resolved_at__isnull', True), ('state', 'PENDING')), models.Q(models.Q(('state', 'PENDING'), _negated=True), ('resolved_at__isnull', False)), _connector='OR'), name='hold_resolved_with_time')],
            },
        ),
        CreatePartitionedModel(
            partition_by='request_id',
            name='UsageRecord',
            fields=[
                ('pk', models.CompositePrimaryKey('request_id', 'revision', blank=True, editable=False, primary_key=True, serialize=False)),
                ('request', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='usage', to='quotas.inferencerequest')),
                ('revision', models.PositiveSmallIntegerField()),
                ('tenant', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('prompt_tokens', models.PositiveIntegerField()),
                ('cached_tokens', models.PositiveIntegerField()),
                ('image_tokens', models.PositiveIntegerField(default=0)),
                ('completion_tokens', models.PositiveIntegerField()),
                ('reasoning_tokens', models.PositiveIntegerField()),
                ('cost_nanos', models.BigIntegerField()),
                ('charged_nanos', models.BigIntegerField()),
                ('granted_nanos', models.BigIntegerField()),
                ('receivable_nanos', models.BigIntegerField()),
                ('overrun_nanos', models.BigIntegerField()),
                ('basis', models.CharField(choices=[('FINAL_USAGE', 'Final Usage'), ('CHECKPOINT', 'Checkpoint'), ('EVENTS', 'Events'), ('NOTHING', 'Nothing')], max_length=16)),
                ('provenance', models.CharField(choices=[('MEASURED', 'Measured'), ('ESTIMATED', 'Estimated')], max_length=16)),
                ('source', models.CharField(choices=[('GATEWAY', 'Gateway'), ('SWEEPER', 'Sweeper'), ('FEED', 'Feed')], max_length=16)),
                ('payload_sha256', models.BinaryField(max_length=32)),
                ('transfer_id', models.UUIDField(blank=True, null=True)),
                ('recorded_at', models.DateTimeField()),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'request'], name='usage_tenant_request')],
                'constraints': [models.CheckConstraint(condition=models.Q(('cost_nanos', django.db.models.expressions.CombinedExpression(models.F('charged_nanos'), '+', models.F('overrun_nanos'))), ('charged_nanos__gte', django.db.models.expressions.CombinedExpression(models.F('granted_nanos'), '+', models.F('receivable_nanos'))), ('granted_nanos__gte', 0), ('overrun_nanos__gte', 0), ('receivable_nanos__gte', 0)), name='usage_amounts_add_up'), models.CheckConstraint(condition=models.Q(('cached_tokens__lte', django.db.models.expressions.CombinedExpression(models.F('prompt_tokens'), '-', models.F('image_tokens'))), ('reasoning_tokens__lte', models.F('completion_tokens'))), name='usage_parts_within_whole'), models.CheckConstraint(condition=models.Q(('basis__in', ['FINAL_USAGE', 'CHECKPOINT', 'EVENTS', 'NOTHING']), ('provenance__in', ['MEASURED', 'ESTIMATED']), ('source__in', ['GATEWAY', 'SWEEPER', 'FEED'])), name='usage_kinds_known')],
            },
        ),
        migrations.CreateModel(
            name='UsageRollup',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'hour', 'model_id', 'api_key_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('hour', models.DateTimeField()),
                ('model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
                ('api_key', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('requests', models.BigIntegerField()),
                ('prompt_tokens', models.BigIntegerField()),
                ('cached_tokens', models.BigIntegerField()),
                ('completion_tokens', models.BigIntegerField()),
                ('reasoning_tokens', models.BigIntegerField()),
                ('cost_nanos', models.BigIntegerField()),
                ('charged_nanos', models.BigIntegerField()),
            ],
            options={
                'indexes': [],
                'constraints': [],
            },
        ),
    ]

