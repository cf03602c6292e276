"""Tiers, limits, and how much of a period is used."""

from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
import uuid
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import (
    CURRENT_TENANT,
    LockTimeout,
    composite_foreign_key,
    grant,
    run_sql_file,
    tenant_wall,
)

HERE = Path(__file__).resolve().parent.parent

TIERS = ("quotas_tier", "quotas_tierrule", "quotas_tierlimit")
OWNED = ("quotas_tierassignment", "quotas_limit", "quotas_limituse", "quotas_budgetalert")
# An organization sees what operators set for it, and neither sets nor ends that itself.
OWN_LIMITS_ONLY = f"""
ALTER POLICY tenant_wall ON quotas_limit
  WITH CHECK (tenant_id = {CURRENT_TENANT} AND origin = 'TENANT');
"""
REVISED = (*TIERS, "quotas_tierassignment", "quotas_limit")


class Migration(migrations.Migration):

    dependencies = [
        ('models_catalog', '0002_guards_and_walls'),
        ('quotas', '0004_counter_samples'),
        ('tenants', '0004_audit'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='LimitRevision',
            fields=[
                ('id', models.SmallIntegerField(primary_key=True, serialize=False)),
                ('revision', models.BigIntegerField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='limitrevision_one_row')],
            },
        ),
        migrations.CreateModel(
            name='Tier',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('code', models.SlugField(max_length=32, unique=True)),
                ('name', models.CharField(max_length=64)),
                ('rank', models.PositiveSmallIntegerField(help_text='The higher, the more it allows.', unique=True)),
                ('is_default', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('is_default', True)), fields=('is_default',), name='tier_one_default')],
            },
        ),
        migrations.CreateModel(
            name='BudgetAlert',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model_id', models.UUIDField(default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('api_key_id', models.UUIDField(default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('kind', models.CharField(choices=[('REQUESTS_RPM', 'Requests Rpm'), ('TOKENS_TPM', 'Tokens Tpm'), ('CONCURRENCY', 'Concurrency'), ('TOKENS_DAY', 'Tokens Day'), ('TOKENS_MONTH', 'Tokens Month'), ('MONEY_DAY', 'Money Day'), ('MONEY_MONTH', 'Money Month')], max_length=16)),
                ('period_start', models.DateField()),
                ('percent', models.PositiveSmallIntegerField()),
                ('value', models.BigIntegerField(help_text='The budget at that moment, in nano-units.')),
                ('used', models.BigIntegerField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'model_id', 'api_key_id', 'kind', 'period_start', 'percent'), name='budgetalert_once')],
            },
        ),
        migrations.CreateModel(
            name='Limit',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('REQUESTS_RPM', 'Requests Rpm'), ('TOKENS_TPM', 'Tokens Tpm'), ('CONCURRENCY', 'Concurrency'), ('TOKENS_DAY', 'Tokens Day'), ('TOKENS_MONTH', 'Tokens Month'), ('MONEY_DAY', 'Money Day'), ('MONEY_MONTH', 'Money Month')], max_length=16)),
                ('origin', models.CharField(choices=[('OPERATOR', 'Operator'), ('TENANT', 'Tenant')], max_length=16)),
                ('value', models.BigIntegerField()),
                ('is_hard', models.BooleanField(default=True)),
                ('alert_percents', django.contrib.postgres.fields.ArrayField(base_field=models.PositiveSmallIntegerField(), blank=True, default=list, size=None)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('api_key', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('model', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
                ('set_by', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['REQUESTS_RPM', 'TOKENS_TPM', 'CONCURRENCY', 'TOKENS_DAY', 'TOKENS_MONTH', 'MONEY_DAY', 'MONEY_MONTH'])), name='limit_kind_known'), models.CheckConstraint(condition=models.Q(('origin__in', ['OPERATOR', 'TENANT'])), name='limit_origin_known'), models.CheckConstraint(condition=models.Q(('value__gte', 0), ('value__lte', 1000000000000000000)), name='limit_value_bounded'), models.CheckConstraint(condition=models.Q(('ends_at__isnull', True), ('ends_at__gte', models.F('starts_at')), _connector='OR'), name='limit_forward'), models.CheckConstraint(condition=models.Q(('kind__in', ('MONEY_DAY', 'MONEY_MONTH')), models.Q(('alert_percents__len', 0), ('is_hard', True)), _connector='OR'), name='limit_alerts_are_of_budgets')],
            },
        ),
        migrations.CreateModel(
            name='LimitUse',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'model_id', 'api_key_id', 'kind', 'period_start', blank=True, editable=False, primary_key=True, serialize=False)),
                ('model_id', models.UUIDField(default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('api_key_id', models.UUIDField(default=uuid.UUID('00000000-0000-0000-0000-000000000000'))),
                ('kind', models.CharField(choices=[('REQUESTS_RPM', 'Requests Rpm'), ('TOKENS_TPM', 'Tokens Tpm'), ('CONCURRENCY', 'Concurrency'), ('TOKENS_DAY', 'Tokens Day'), ('TOKENS_MONTH', 'Tokens Month'), ('MONEY_DAY', 'Money Day'), ('MONEY_MONTH', 'Money Month')], max_length=16)),
                ('period_start', models.DateField()),
                ('used', models.BigIntegerField(default=0)),
                ('pending', models.BigIntegerField(default=0)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ('TOKENS_DAY', 'TOKENS_MONTH', 'MONEY_DAY', 'MONEY_MONTH'))), name='limituse_kind_known'), models.CheckConstraint(condition=models.Q(('pending__gte', 0)), name='limituse_pending_positive')],
            },
        ),
        migrations.CreateModel(
            name='TierAssignment',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('is_automatic', models.BooleanField()),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('set_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('tier', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.tier')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('ends_at__isnull', True), ('ends_at__gte', models.F('starts_at')), _connector='OR'), name='tierassignment_forward'), models.CheckConstraint(condition=models.Q(models.Q(('is_automatic', True), ('set_by__isnull', True)), models.Q(('is_automatic', False), ('set_by__isnull', False), models.Q(('reason', ''), _negated=True)), _connector='OR'), name='tierassignment_by_somebody')],
            },
        ),
        migrations.CreateModel(
            name='TierLimit',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('REQUESTS_RPM', 'Requests Rpm'), ('TOKENS_TPM', 'Tokens Tpm'), ('CONCURRENCY', 'Concurrency'), ('TOKENS_DAY', 'Tokens Day'), ('TOKENS_MONTH', 'Tokens Month'), ('MONEY_DAY', 'Money Day'), ('MONEY_MONTH', 'Money Month')], max_length=16)),
                ('currency', models.CharField(blank=True, help_text='Of a ceiling of money; empty otherwise.', max_length=3)),
                ('value', models.BigIntegerField()),
                ('model', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.catalogmodel')),
                ('tier', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='limits', to='quotas.tier')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tier', 'model', 'kind', 'currency'), name='tierlimit_once', nulls_distinct=False), models.CheckConstraint(condition=models.Q(('kind__in', ['REQUESTS_RPM', 'TOKENS_TPM', 'CONCURRENCY', 'TOKENS_DAY', 'TOKENS_MONTH', 'MONEY_DAY', 'MONEY_MONTH'])), name='tierlimit_kind_known'), models.CheckConstraint(condition=models.Q(('value__gte', 0), ('value__lte', 1000000000000000000)), name='tierlimit_value_bounded'), models.CheckConstraint(condition=models.Q(models.Q(('currency__regex', '^[A-Z]{3}$'), ('kind__in', ('MONEY_DAY', 'MONEY_MONTH'))), models.Q(models.Q(('kind__in', ('MONEY_DAY', 'MONEY_MONTH')), _negated=True), ('currency', '')), _connector='OR'), name='tierlimit_currency_of_money')],
            },
        ),
        migrations.CreateModel(
            name='TierRule',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('lifetime_paid_nanos', models.BigIntegerField()),
                ('tier', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='rules', to='quotas.tier')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tier', 'currency'), name='tierrule_once'), models.CheckConstraint(condition=models.Q(('lifetime_paid_nanos__gt', 0)), name='tierrule_positive'), models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='tierrule_currency_code')],
            },
        ),
        composite_foreign_key("quotas_limit", "tenant_id, api_key_id", "tenants_apikey", "tenant_id, id"),
        run_sql_file(HERE / "limits" / "sql" / "limits.sql"),
        *(
            migrations.RunSQL(
                f"CREATE TRIGGER raise_revision AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION quotas_raise_limit_revision()",
                migrations.RunSQL.noop,
            )
            for table in REVISED
        ),
        *(tenant_wall(table) for table in OWNED),
        migrations.RunSQL(OWN_LIMITS_ONLY, migrations.RunSQL.noop),
        grant("SELECT", (*TIERS, *OWNED), "tenant", "operator", "dataplane"),
        grant("SELECT", ("quotas_limitrevision",), "tenant", "operator", "dataplane"),
        grant("INSERT, UPDATE, DELETE", TIERS, "operator"),
        grant("INSERT, UPDATE (ends_at)", "quotas_tierassignment", "operator"),
        grant("INSERT, UPDATE (ends_at)", "quotas_limit", "operator", "tenant"),
        grant("INSERT, UPDATE", "quotas_limituse", "dataplane"),
        grant("INSERT", "quotas_budgetalert", "dataplane", "operator"),
    ]
