"""Bank transfers, approved by two operators, and invoices on request."""

from pathlib import Path

import django.db.models.deletion
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "payments" / "sql"
INVOICES = ["quotas_billingprofile", "quotas_invoicerequest", "quotas_invoiceline", "quotas_invoicedocument"]


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0011_payments'),
        ('tenants', '0005_management_keys'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='BankReceipt',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('tax_nanos', models.BigIntegerField(default=0)),
                ('value_date', models.DateField()),
                ('bank_transaction_id', models.CharField(max_length=100)),
                ('payer_name', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=500)),
                ('recorded_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('WAITING', 'Waiting'), ('APPROVED', 'Approved'), ('REFUSED', 'Refused'), ('WITHDRAWN', 'Withdrawn')], default='WAITING', max_length=16)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_reason', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='BankReference',
            fields=[
                ('reference', models.CharField(max_length=12, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='BillingProfile',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.tenant')),
                ('legal_name', models.CharField(max_length=200)),
                ('tax_id', models.CharField(max_length=64)),
                ('address', models.CharField(blank=True, max_length=500)),
                ('bank_details', models.CharField(blank=True, max_length=500)),
                ('changed_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('UNVERIFIED', 'Unverified'), ('VERIFIED', 'Verified'), ('REFUSED', 'Refused')], default='UNVERIFIED', max_length=16)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_reason', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='InvoiceDocument',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('INVOICE', 'Invoice'), ('CREDIT_NOTE', 'Credit Note')], max_length=16)),
                ('content', models.BinaryField()),
                ('size_bytes', models.PositiveIntegerField()),
                ('created_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('month', models.DateField()),
                ('amount_nanos', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='InvoiceRequest',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('to_at', models.DateTimeField()),
                ('legal_name', models.CharField(max_length=200)),
                ('tax_id', models.CharField(max_length=64)),
                ('address', models.CharField(blank=True, max_length=500)),
                ('bank_details', models.CharField(blank=True, max_length=500)),
                ('requested_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('REQUESTED', 'Requested'), ('ISSUED', 'Issued'), ('REFUSED', 'Refused'), ('CANCELLED', 'Cancelled'), ('CREDITED', 'Credited')], default='REQUESTED', max_length=16)),
                ('number', models.CharField(blank=True, max_length=64, null=True, unique=True)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_reason', models.CharField(blank=True, max_length=500)),
                ('cancelled_at', models.DateTimeField(blank=True, null=True)),
                ('credit_number', models.CharField(blank=True, max_length=64, null=True, unique=True)),
                ('credited_at', models.DateTimeField(blank=True, null=True)),
                ('credit_reason', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.AddIndex(
            model_name='ledgertransfer',
            index=models.Index(condition=models.Q(('kind', 'USAGE'), _negated=True), fields=['tenant'], name='transfer_tenant_otherwise'),
        ),
        migrations.AddField(
            model_name='bankreceipt',
            name='decided_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='bankreceipt',
            name='recorded_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='bankreceipt',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='bankreceipt',
            name='top_up',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.topup'),
        ),
        migrations.AddField(
            model_name='bankreference',
            name='created_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='bankreference',
            name='tenant',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='bankreceipt',
            name='reference',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.bankreference'),
        ),
        migrations.AddField(
            model_name='billingprofile',
            name='changed_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='billingprofile',
            name='decided_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invoicedocument',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='invoicerequest',
            name='cancelled_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invoicerequest',
            name='credited_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invoicerequest',
            name='decided_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invoicerequest',
            name='requested_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invoicerequest',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='invoice',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='quotas.invoicerequest'),
        ),
        migrations.AddField(
            model_name='invoicedocument',
            name='invoice',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='documents', to='quotas.invoicerequest'),
        ),
        migrations.AddConstraint(
            model_name='bankreference',
            constraint=models.UniqueConstraint(fields=('reference', 'tenant'), name='bankreference_tenant'),
        ),
        migrations.AddConstraint(
            model_name='bankreference',
            constraint=models.CheckConstraint(condition=models.Q(('reference__regex', '^SL[2-9A-HJKMNP-TV-Z]{2}-[2-9A-HJKMNP-TV-Z]{4}-[0-9]{2}$')), name='bankreference_spelling'),
        ),
        migrations.AddIndex(
            model_name='bankreceipt',
            index=models.Index(fields=['tenant', '-id'], name='bankreceipt_tenant'),
        ),
        migrations.AddIndex(
            model_name='bankreceipt',
            index=models.Index(condition=models.Q(('state', 'WAITING')), fields=['recorded_at'], name='bankreceipt_waiting'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['WAITING', 'APPROVED', 'REFUSED', 'WITHDRAWN'])), name='bankreceipt_state_known'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', models.F('tax_nanos')), ('tax_nanos__gte', 0), ('amount_nanos__lte', 1000000000000000)), name='bankreceipt_amounts'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('bank_transaction_id', ''), _negated=True), models.Q(('payer_name', ''), _negated=True), models.Q(('reason', ''), _negated=True)), name='bankreceipt_said'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(('bank_transaction_id', models.Func(models.Func(models.F('bank_transaction_id'), function='upper'), models.Value('\\s'), models.Value(''), models.Value('g'), function='regexp_replace', output_field=models.CharField()))), name='bankreceipt_line_spelling'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ['WAITING', 'APPROVED'])), fields=('currency', 'bank_transaction_id'), name='bankreceipt_line_once'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('state', 'WAITING')), models.Q(models.Q(('state', 'WAITING'), _negated=True), ('decided_at__isnull', False), ('decided_by__isnull', False)), _connector='OR'), name='bankreceipt_decided'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(('decided_by__isnull', True), models.Q(('decided_by', models.F('recorded_by')), ('state', 'WITHDRAWN')), models.Q(models.Q(('state', 'WITHDRAWN'), _negated=True), models.Q(('decided_by', models.F('recorded_by')), _negated=True)), _connector='OR'), name='bankreceipt_decided_by_another'),
        ),
        migrations.AddConstraint(
            model_name='bankreceipt',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'APPROVED'), ('top_up', models.F('id')), ('top_up__isnull', False)), models.Q(models.Q(('state', 'APPROVED'), _negated=True), ('top_up__isnull', True)), _connector='OR'), name='bankreceipt_credited_once'),
        ),
        migrations.AddIndex(
            model_name='billingprofile',
            index=models.Index(condition=models.Q(('state', 'UNVERIFIED')), fields=['changed_at'], name='billingprofile_waiting'),
        ),
        migrations.AddConstraint(
            model_name='billingprofile',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('legal_name', ''), _negated=True), models.Q(('tax_id', ''), _negated=True)), name='billingprofile_names_given'),
        ),
        migrations.AddConstraint(
            model_name='billingprofile',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('state', 'UNVERIFIED')), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), ('state', 'VERIFIED')), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), ('state', 'REFUSED'), models.Q(('decision_reason', ''), _negated=True)), _connector='OR'), name='billingprofile_decided'),
        ),
        migrations.AddIndex(
            model_name='invoicerequest',
            index=models.Index(fields=['tenant', '-id'], name='invoicerequest_tenant'),
        ),
        migrations.AddIndex(
            model_name='invoicerequest',
            index=models.Index(condition=models.Q(('state', 'REQUESTED')), fields=['requested_at'], name='invoicerequest_waiting'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.UniqueConstraint(fields=('id', 'tenant'), name='invoicerequest_id_tenant'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['REQUESTED', 'ISSUED', 'REFUSED', 'CANCELLED', 'CREDITED'])), name='invoicerequest_state_known'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='invoicerequest_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('legal_name', ''), _negated=True), models.Q(('tax_id', ''), _negated=True)), name='invoicerequest_names_given'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('number__isnull', True), ('state__in', ['REQUESTED', 'CANCELLED'])), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), ('state', 'REFUSED'), ('number__isnull', True), models.Q(('decision_reason', ''), _negated=True)), models.Q(('decided_at__isnull', False), ('state__in', ['ISSUED', 'CREDITED']), ('number__isnull', False), models.Q(('number', ''), _negated=True)), _connector='OR'), name='invoicerequest_decided'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('cancelled_at__isnull', False), ('cancelled_by__isnull', False), ('state', 'CANCELLED')), models.Q(models.Q(('state', 'CANCELLED'), _negated=True), ('cancelled_at__isnull', True), ('cancelled_by__isnull', True)), _connector='OR'), name='invoicerequest_cancelled'),
        ),
        migrations.AddConstraint(
            model_name='invoicerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('credited_at__isnull', False), ('credited_by__isnull', False), ('state', 'CREDITED'), ('credit_number__isnull', False), models.Q(('credit_number', ''), _negated=True), models.Q(('credit_reason', ''), _negated=True)), models.Q(models.Q(('state', 'CREDITED'), _negated=True), ('credit_number__isnull', True), ('credited_at__isnull', True), ('credited_by__isnull', True)), _connector='OR'), name='invoicerequest_credited'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'month'), name='invoiceline_once_a_month'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='invoiceline_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('month__day', 1)), name='invoiceline_first_of_month'),
        ),
        migrations.AddConstraint(
            model_name='invoicedocument',
            constraint=models.UniqueConstraint(fields=('invoice', 'kind'), name='invoicedocument_once'),
        ),
        migrations.AddConstraint(
            model_name='invoicedocument',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['INVOICE', 'CREDIT_NOTE'])), name='invoicedocument_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='invoicedocument',
            constraint=models.CheckConstraint(condition=models.Q(('size_bytes__gt', 0), ('size_bytes__lte', 2097152)), name='invoicedocument_size'),
        ),
        composite_foreign_key("quotas_bankreceipt", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_bankreceipt", "reference_id, tenant_id", "quotas_bankreference", "reference, tenant_id"),
        composite_foreign_key("quotas_bankreceipt", "top_up_id, tenant_id, currency", "quotas_topup", "id, tenant_id, currency"),
        composite_foreign_key("quotas_invoicerequest", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_invoiceline", "invoice_id, tenant_id", "quotas_invoicerequest", "id, tenant_id"),
        composite_foreign_key("quotas_invoicedocument", "invoice_id, tenant_id", "quotas_invoicerequest", "id, tenant_id"),
        run_sql_file(SQL / "bank_transfers.sql"),
        run_sql_file(SQL / "invoices.sql"),
        *(tenant_wall(table, crossing=("operator",)) for table in ["quotas_bankreference", "quotas_bankreceipt", *INVOICES]),
        # A receipt is between our bank and operators; the organization sees the top-up that it becomes.
        grant("SELECT, INSERT", "quotas_bankreceipt", "operator"),
        grant(
            "UPDATE (state, decided_by_id, decided_at, decision_reason, top_up_id)", "quotas_bankreceipt", "operator"
        ),
        grant("SELECT, INSERT", "quotas_bankreference", "tenant"),
        grant("SELECT", "quotas_bankreference", "operator"),
        # Members say who they are and ask; what becomes of it is written by operators.
        grant("SELECT", INVOICES, "tenant", "operator"),
        grant("INSERT", ["quotas_billingprofile", "quotas_invoicerequest", "quotas_invoiceline"], "tenant"),
        grant(
            "UPDATE (legal_name, tax_id, address, bank_details, changed_by_id, changed_at)",
            "quotas_billingprofile",
            "tenant",
        ),
        grant("UPDATE (state, cancelled_by_id, cancelled_at)", "quotas_invoicerequest", "tenant"),
        grant(
            "UPDATE (state, decided_by_id, decided_at, decision_reason)", "quotas_billingprofile", "operator"
        ),
        grant(
            "UPDATE (state, number, decided_by_id, decided_at, decision_reason, credit_number, credited_by_id, "
            "credited_at, credit_reason)",
            "quotas_invoicerequest",
            "operator",
        ),
        grant("INSERT", "quotas_invoicedocument", "operator"),
    ]
