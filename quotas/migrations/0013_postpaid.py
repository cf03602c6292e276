"""Organizations that pay afterwards: agreements, monthly invoices and credit notes."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.expressions
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "payments" / "sql"
INVOICES = ["quotas_monthlyinvoice", "quotas_monthlyinvoiceline", "quotas_creditnote"]


class Migration(migrations.Migration):

    dependencies = [
        ('models_catalog', '0006_curves'),
        ('quotas', '0012_bank_transfers'),
        ('tenants', '0006_automatic_suspension'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='CreditNote',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('is_after_payment', models.BooleanField()),
                ('reason', models.CharField(max_length=500)),
                ('ordered_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('PENDING', 'Pending'), ('ISSUED', 'Issued'), ('FAILED', 'Failed')], default='PENDING', max_length=16)),
                ('credit_note_id', models.CharField(blank=True, max_length=255, null=True, unique=True)),
                ('number', models.CharField(blank=True, max_length=64)),
                ('pdf_url', models.URLField(blank=True, max_length=2000)),
                ('failure_text', models.CharField(blank=True, max_length=500)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('transfer_id', models.UUIDField(blank=True, null=True, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name='MonthlyInvoice',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('month', models.DateField()),
                ('from_at', models.DateTimeField()),
                ('from_cut_at', models.DateTimeField()),
                ('to_at', models.DateTimeField()),
                ('cut_at', models.DateTimeField()),
                ('usage_nanos', models.BigIntegerField()),
                ('brought_nanos', models.BigIntegerField()),
                ('payments_nanos', models.BigIntegerField()),
                ('amount_nanos', models.BigIntegerField()),
                ('credited_nanos', models.BigIntegerField(default=0)),
                ('days_until_due', models.PositiveSmallIntegerField()),
                ('state', models.CharField(choices=[('COVERED', 'Covered'), ('DRAFT', 'Draft'), ('OPEN', 'Open'), ('PAID', 'Paid'), ('VOID', 'Void'), ('UNCOLLECTIBLE', 'Uncollectible')], max_length=16)),
                ('dunning', models.CharField(choices=[('CLEAR', 'Clear'), ('REMINDED', 'Reminded'), ('EXHAUSTED', 'Exhausted')], default='CLEAR', max_length=16)),
                ('reminders', models.PositiveSmallIntegerField(default=0)),
                ('reminded_at', models.DateTimeField(blank=True, null=True)),
                ('exhausted_at', models.DateTimeField(blank=True, null=True)),
                ('stripe_invoice_id', models.CharField(blank=True, max_length=255, null=True, unique=True)),
                ('number', models.CharField(blank=True, max_length=64)),
                ('pay_url', models.URLField(blank=True, max_length=2000)),
                ('pdf_url', models.URLField(blank=True, max_length=2000)),
                ('failure_text', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField()),
                ('finalized_at', models.DateTimeField(blank=True, null=True)),
                ('due_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='MonthlyInvoiceLine',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('position', models.PositiveIntegerField()),
                ('kind', models.CharField(choices=[('USAGE', 'Usage'), ('BROUGHT', 'Brought'), ('PAYMENTS', 'Payments'), ('CARRIED', 'Carried')], max_length=16)),
                ('token_class', models.CharField(blank=True, max_length=16)),
                ('units', models.BigIntegerField(default=0)),
                ('cost_nanos', models.BigIntegerField(default=0)),
                ('free_nanos', models.BigIntegerField(default=0)),
                ('amount_nanos', models.BigIntegerField()),
                ('asked_nanos', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='PostpaidAgreement',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('is_on', models.BooleanField(default=True)),
                ('since', models.DateTimeField()),
                ('days_until_due', models.PositiveSmallIntegerField()),
                ('changed_at', models.DateTimeField()),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='topup',
            name='topup_source_known',
        ),
        migrations.AlterField(
            model_name='topup',
            name='source',
            field=models.CharField(choices=[('CHECKOUT', 'Checkout'), ('RECHARGE', 'Recharge'), ('BANK', 'Bank'), ('INVOICE', 'Invoice')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='topup',
            constraint=models.CheckConstraint(condition=models.Q(('source__in', ['CHECKOUT', 'RECHARGE', 'BANK', 'INVOICE'])), name='topup_source_known'),
        ),
        migrations.AddField(
            model_name='creditnote',
            name='ordered_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='creditnote',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='monthlyinvoice',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='monthlyinvoice',
            name='top_up',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.topup'),
        ),
        migrations.AddField(
            model_name='creditnote',
            name='invoice',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='quotas.monthlyinvoice'),
        ),
        migrations.AddField(
            model_name='monthlyinvoiceline',
            name='invoice',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='quotas.monthlyinvoice'),
        ),
        migrations.AddField(
            model_name='monthlyinvoiceline',
            name='model',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel'),
        ),
        migrations.AddField(
            model_name='monthlyinvoiceline',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='postpaidagreement',
            name='changed_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='monthlyinvoice',
            index=models.Index(condition=models.Q(('state', 'OPEN')), fields=['due_at'], name='monthlyinvoice_open'),
        ),
        migrations.AddIndex(
            model_name='monthlyinvoice',
            index=models.Index(condition=models.Q(('dunning', 'EXHAUSTED'), ('state__in', ('OPEN', 'UNCOLLECTIBLE'))), fields=['tenant'], name='monthlyinvoice_overdue'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.UniqueConstraint(fields=('id', 'tenant', 'currency'), name='monthlyinvoice_id_tenant_currency'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.UniqueConstraint(fields=('tenant', 'month'), name='monthlyinvoice_once_a_month'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['COVERED', 'DRAFT', 'OPEN', 'PAID', 'VOID', 'UNCOLLECTIBLE'])), name='monthlyinvoice_state_known'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('dunning', 'CLEAR'), ('exhausted_at__isnull', True), ('reminders', 0)), models.Q(('dunning', 'REMINDED'), ('exhausted_at__isnull', True), ('reminders__gt', 0)), models.Q(('dunning', 'EXHAUSTED'), ('exhausted_at__isnull', False)), _connector='OR'), name='monthlyinvoice_dunning'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(('from_at__lt', models.F('to_at')), ('from_cut_at__lte', models.F('cut_at')), ('month__day', 1)), name='monthlyinvoice_period'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gte', 0), ('amount_nanos__lte', 1000000000000000), models.Q(('amount_nanos', 0), ('amount_nanos__lte', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('brought_nanos'), '+', models.F('usage_nanos')), '-', models.F('payments_nanos'))), _connector='OR')), name='monthlyinvoice_asks_what_is_due'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(('credited_nanos__gte', 0), ('credited_nanos__lte', models.F('amount_nanos'))), name='monthlyinvoice_credited_within'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('amount_nanos', 0), ('state', 'COVERED')), models.Q(models.Q(('state', 'COVERED'), _negated=True), ('amount_nanos__gt', 0)), _connector='OR'), name='monthlyinvoice_covered_asks_nothing'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state__in', ('OPEN', 'PAID', 'UNCOLLECTIBLE')), _negated=True), models.Q(('due_at__isnull', False), ('finalized_at__isnull', False), ('stripe_invoice_id__isnull', False)), _connector='OR'), name='monthlyinvoice_finalized'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'PAID'), ('top_up', models.F('id')), ('top_up__isnull', False)), models.Q(('credited_nanos', models.F('amount_nanos')), ('state', 'PAID'), ('top_up__isnull', True)), models.Q(models.Q(('state', 'PAID'), _negated=True), ('top_up__isnull', True)), _connector='OR'), name='monthlyinvoice_credited_once'),
        ),
        migrations.AddIndex(
            model_name='creditnote',
            index=models.Index(fields=['tenant', '-id'], name='creditnote_tenant'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='creditnote_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='creditnote_reason_given'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('state', 'PENDING'), ('transfer_id__isnull', True)), models.Q(('credit_note_id__isnull', False), ('ended_at__isnull', False), ('state', 'ISSUED'), ('transfer_id__isnull', False)), models.Q(('ended_at__isnull', False), ('state', 'FAILED'), ('transfer_id__isnull', True)), _connector='OR'), name='creditnote_posted_when_issued'),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'kind', 'model', 'token_class'), name='monthlyinvoiceline_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='monthlyinvoiceline',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'USAGE'), ('model__isnull', False), models.Q(('token_class', ''), _negated=True), ('amount_nanos', django.db.models.expressions.CombinedExpression(models.F('cost_nanos'), '-', models.F('free_nanos')))), models.Q(('kind__in', ['BROUGHT', 'PAYMENTS', 'CARRIED']), ('cost_nanos', 0), ('free_nanos', 0), ('model__isnull', True), ('token_class', ''), ('units', 0)), _connector='OR'), name='monthlyinvoiceline_kind'),
        ),
        migrations.AddConstraint(
            model_name='postpaidagreement',
            constraint=models.CheckConstraint(condition=models.Q(('days_until_due__gte', 0), ('days_until_due__lte', 120)), name='postpaidagreement_days_bounded'),
        ),
        composite_foreign_key("quotas_postpaidagreement", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_monthlyinvoice", "tenant_id, currency", "tenants_tenant", "id, currency"),
        composite_foreign_key("quotas_monthlyinvoice", "top_up_id, tenant_id, currency", "quotas_topup", "id, tenant_id, currency"),
        composite_foreign_key("quotas_monthlyinvoiceline", "invoice_id, tenant_id, currency", "quotas_monthlyinvoice", "id, tenant_id, currency"),
        composite_foreign_key("quotas_creditnote", "invoice_id, tenant_id, currency", "quotas_monthlyinvoice", "id, tenant_id, currency"),
        composite_foreign_key("quotas_creditnote", "transfer_id, currency", "quotas_ledgertransfer", "id, currency"),
        run_sql_file(SQL / "postpaid.sql"),
        *(tenant_wall(table, crossing=("operator",)) for table in ["quotas_postpaidagreement", *INVOICES]),
        # Members read what they owe; all of it is written by workers and operators.
        grant("SELECT", ["quotas_postpaidagreement", *INVOICES], "tenant"),
        grant("SELECT, INSERT", ["quotas_postpaidagreement", *INVOICES], "operator"),
        grant("UPDATE (is_on, days_until_due, changed_by_id, changed_at)", "quotas_postpaidagreement", "operator"),
        grant(
            "UPDATE (credited_nanos, state, dunning, reminders, reminded_at, exhausted_at, stripe_invoice_id, number, "
            "pay_url, pdf_url, failure_text, finalized_at, due_at, ended_at, top_up_id)",
            "quotas_monthlyinvoice",
            "operator",
        ),
        grant(
            "UPDATE (state, credit_note_id, number, pdf_url, failure_text, ended_at, transfer_id)",
            "quotas_creditnote",
            "operator",
        ),
    ]
