"""The audit log, operators' notes about organizations, and what a suspension does to calls in flight."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import CURRENT_TENANT, LockTimeout, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "sql"

# An organization reads its own events but the internal ones, and writes its members' events: what an operator
# did is never written down in its name.
AUDIT_WALL = f"""
    ALTER TABLE tenants_auditevent ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenants_auditevent FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant_wall ON tenants_auditevent FOR ALL TO sluice_tenant
      USING (tenant_id = {CURRENT_TENANT} AND NOT is_internal)
      WITH CHECK (tenant_id = {CURRENT_TENANT} AND NOT is_internal AND actor_kind <> 'OPERATOR');
    CREATE POLICY owner_all ON tenants_auditevent FOR ALL TO CURRENT_USER USING (true) WITH CHECK (true);
    CREATE POLICY operator_all ON tenants_auditevent FOR ALL TO sluice_operator USING (true) WITH CHECK (true);
    CREATE POLICY auth_all ON tenants_auditevent FOR ALL TO sluice_auth USING (true) WITH CHECK (true);
    CREATE POLICY dataplane_all ON tenants_auditevent FOR ALL TO sluice_dataplane USING (true) WITH CHECK (true);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0003_invitations_terms_and_mail'),
    ]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='tenant',
            name='cuts_calls',
            field=models.BooleanField(db_default=False, default=False, help_text='While suspended: calls in flight are cut, not finished.'),
        ),
        migrations.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('actor_kind', models.CharField(choices=[('OPERATOR', 'Operator'), ('MEMBER', 'Member'), ('SYSTEM', 'System')], max_length=16)),
                ('actor_role', models.CharField(blank=True, max_length=16)),
                ('key_id', models.UUIDField(blank=True, null=True)),
                ('action', models.CharField(max_length=64)),
                ('outcome', models.CharField(choices=[('DONE', 'Done'), ('REFUSED', 'Refused')], default='DONE', max_length=16)),
                ('target', models.CharField(blank=True, max_length=200)),
                ('before', models.JSONField(blank=True, null=True)),
                ('after', models.JSONField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('is_internal', models.BooleanField(default=False)),
                ('actor', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', '-id'], name='audit_tenant'), models.Index(fields=['action', '-id'], name='audit_action')],
                'constraints': [models.CheckConstraint(condition=models.Q(('actor_kind__in', ['OPERATOR', 'MEMBER', 'SYSTEM'])), name='audit_actor_known'), models.CheckConstraint(condition=models.Q(('outcome__in', ['DONE', 'REFUSED'])), name='audit_outcome_known'), models.CheckConstraint(condition=models.Q(models.Q(('actor__isnull', True), ('actor_kind', 'SYSTEM')), models.Q(models.Q(('actor_kind', 'SYSTEM'), _negated=True), ('actor__isnull', False)), _connector='OR'), name='audit_actor_fits_kind'), models.CheckConstraint(condition=models.Q(('action__regex', '^[a-z_]+(\\.[a-z_]+)+$')), name='audit_action_form')],
            },
        ),
        migrations.CreateModel(
            name='TenantNote',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('text', models.TextField(max_length=4000)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('author', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('text', ''), _negated=True), name='note_not_empty')],
            },
        ),
        run_sql_file(SQL / "audit.sql"),
        migrations.RunSQL(AUDIT_WALL, migrations.RunSQL.noop),
        tenant_wall("tenants_tenantnote", crossing=("operator",)),
        grant("SELECT, INSERT", "tenants_auditevent", "tenant", "operator"),
        grant("INSERT, SELECT (id, at)", "tenants_auditevent", "auth", "dataplane"),
        grant("SELECT, INSERT", "tenants_tenantnote", "operator"),
        grant("UPDATE (cuts_calls)", "tenants_tenant", "operator"),
    ]
