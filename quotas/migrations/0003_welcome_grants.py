"""Welcome credit: promised at sign-up, given once."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import LockTimeout, composite_foreign_key, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("quotas", "0002_ledger_functions_and_walls"), ("tenants", "0003_invitations_terms_and_mail")]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='WelcomeGrant',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='welcome_grant', serialize=False, to='tenants.tenant')),
                ('currency', models.CharField(max_length=3)),
                ('amount_nanos', models.BigIntegerField()),
                ('state', models.CharField(choices=[('WAITING', 'Waiting'), ('HELD', 'Held'), ('GIVEN', 'Given'), ('REFUSED', 'Refused')], default='WAITING', max_length=16)),
                ('reason', models.CharField(blank=True, help_text='Why it is held or was refused.', max_length=200)),
                ('person_key', models.BinaryField(blank=True, max_length=32, null=True, unique=True)),
                ('email_domain', models.CharField(blank=True, max_length=253)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decided_by', models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('decided_by__isnull', True), ('state', 'GIVEN')), fields=['decided_at'], name='welcome_given_lately'), models.Index(condition=models.Q(('state', 'HELD')), fields=['created_at'], name='welcome_held')],
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='welcome_amount_positive'), models.CheckConstraint(condition=models.Q(('state__in', ['WAITING', 'HELD', 'GIVEN', 'REFUSED'])), name='welcome_state_known'), models.CheckConstraint(condition=models.Q(('state', 'REFUSED'), models.Q(('person_key__isnull', True), ('state', 'WAITING')), models.Q(('person_key__isnull', False), ('state__in', ['HELD', 'GIVEN'])), _connector='OR'), name='welcome_person_claimed'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('state', 'WAITING')), models.Q(models.Q(('state', 'WAITING'), _negated=True), ('decided_at__isnull', False)), _connector='OR'), name='welcome_decided')],
            },
        ),
        composite_foreign_key("quotas_welcomegrant", "tenant_id, currency", "tenants_tenant", "id, currency"),
        run_sql_file(SQL / "welcome.sql"),
        tenant_wall("quotas_welcomegrant", crossing=("operator", "auth")),
        # An organization sees what it was promised, not how we tell people apart.
        grant(
            "SELECT (tenant_id, currency, amount_nanos, state, reason, created_at, decided_at)",
            "quotas_welcomegrant",
            "tenant",
        ),
        grant("SELECT, INSERT", "quotas_welcomegrant", "operator", "auth"),
        grant(
            "UPDATE (state, reason, person_key, email_domain, decided_at, decided_by_id)",
            "quotas_welcomegrant",
            "operator",
        ),
    ]
