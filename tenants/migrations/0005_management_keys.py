"""Credentials of the management API, and what was already written under an idempotency key."""

import datetime
from pathlib import Path

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "sql"

# All but the digest, which only whoever looks a key up compares with.
_SHOWN = (
    "id, tenant_id, name, role, scopes, pepper_number, secret_hint, created_by_id, created_at, expires_at, "
    "revoked_at, last_used_at"
)


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0004_audit'),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='ManagementKey',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('role', models.CharField(blank=True, choices=[('OWNER', 'Owner'), ('ADMIN', 'Admin'), ('DEVELOPER', 'Developer'), ('BILLING', 'Billing'), ('VIEWER', 'Viewer')], help_text="Empty for operators' keys.", max_length=16)),
                ('scopes', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(choices=[('keys:read', 'Keys Read'), ('keys:write', 'Keys Write'), ('models:read', 'Models Read'), ('models:write', 'Models Write'), ('usage:read', 'Usage Read'), ('balance:read', 'Balance Read'), ('limits:read', 'Limits Read'), ('limits:write', 'Limits Write'), ('tenants:read', 'Tenants Read'), ('tenants:write', 'Tenants Write'), ('prices:read', 'Prices Read'), ('prices:write', 'Prices Write'), ('credit:write', 'Credit Write'), ('fleet:read', 'Fleet Read'), ('fleet:write', 'Fleet Write'), ('business:read', 'Business Read'), ('audit:read', 'Audit Read')], max_length=32), size=None)),
                ('pepper_number', models.PositiveSmallIntegerField()),
                ('digest', models.BinaryField(max_length=32)),
                ('secret_hint', models.CharField(help_text='The last characters, to recognise a key by.', max_length=4)),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('last_used_at', models.DateTimeField(blank=True, null=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='management_keys', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='IdempotentWrite',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('idempotency_key', models.CharField(max_length=255)),
                ('fingerprint', models.BinaryField(max_length=32)),
                ('status', models.PositiveSmallIntegerField()),
                ('answer', models.TextField()),
                ('created_at', models.DateTimeField(db_index=True)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
                ('management_key', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.managementkey')),
            ],
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.UniqueConstraint(fields=('tenant', 'id'), name='managementkey_tenant_id'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(('pepper_number__gte', 1)), name='managementkey_pepper_number'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(('name', ''), _negated=True), name='managementkey_named'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('role__in', ['OWNER', 'ADMIN', 'DEVELOPER', 'BILLING', 'VIEWER']), ('tenant__isnull', False)), models.Q(('role', ''), ('tenant__isnull', True)), _connector='OR'), name='managementkey_role_or_operator'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(('scopes__len__gte', 1), models.Q(models.Q(('scopes__contained_by', ['keys:read', 'keys:write', 'models:read', 'models:write', 'usage:read', 'balance:read', 'limits:read', 'limits:write']), ('tenant__isnull', False)), models.Q(('scopes__contained_by', ['tenants:read', 'tenants:write', 'prices:read', 'prices:write', 'credit:write', 'fleet:read', 'fleet:write', 'business:read', 'audit:read']), ('tenant__isnull', True)), _connector='OR')), name='managementkey_scopes_fit'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__isnull', True), ('expires_at__gt', models.F('created_at')), _connector='OR'), name='managementkey_period_forward'),
        ),
        migrations.AddConstraint(
            model_name='managementkey',
            constraint=models.CheckConstraint(condition=models.Q(('tenant__isnull', False), models.Q(('expires_at__isnull', False), ('expires_at__lte', django.db.models.expressions.CombinedExpression(models.F('created_at'), '+', models.Value(datetime.timedelta(days=90))))), _connector='OR'), name='managementkey_operators_expire'),
        ),
        migrations.AddConstraint(
            model_name='idempotentwrite',
            constraint=models.UniqueConstraint(fields=('management_key', 'idempotency_key'), name='idempotentwrite_once'),
        ),
        migrations.AddConstraint(
            model_name='idempotentwrite',
            constraint=models.CheckConstraint(condition=models.Q(('idempotency_key', ''), _negated=True), name='idempotentwrite_key_given'),
        ),
        migrations.AddConstraint(
            model_name='idempotentwrite',
            constraint=models.CheckConstraint(condition=models.Q(('status__gte', 200), ('status__lt', 300)), name='idempotentwrite_succeeded'),
        ),
        composite_foreign_key(
            "tenants_idempotentwrite", "tenant_id, management_key_id", "tenants_managementkey", "tenant_id, id"
        ),
        run_sql_file(SQL / "management.sql"),
        # Operators' keys belong to no organization, so none sees them.
        tenant_wall("tenants_managementkey", crossing=("operator", "auth")),
        tenant_wall("tenants_idempotentwrite", crossing=("operator", "dataplane")),
        grant(f"SELECT ({_SHOWN})", "tenants_managementkey", "tenant", "operator"),
        grant("INSERT, UPDATE (name, revoked_at)", "tenants_managementkey", "tenant", "operator"),
        grant("SELECT, UPDATE (last_used_at)", "tenants_managementkey", "auth"),
        grant("SELECT, INSERT", "tenants_idempotentwrite", "tenant", "operator"),
        grant("SELECT (id, created_at), DELETE", "tenants_idempotentwrite", "dataplane"),
    ]
