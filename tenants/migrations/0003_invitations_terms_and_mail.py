"""Invitations, accepted terms, the outbox of mails, and what a key is for."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.functions.text
import django.db.models.lookups
from django.conf import settings
from django.db import migrations, models

import portal.kit.ids
from portal.kit.migrations import LockTimeout, grant, revoke, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_roles_and_walls")]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='Invitation',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('email', models.EmailField(max_length=254)),
                ('role', models.CharField(choices=[('OWNER', 'Owner'), ('ADMIN', 'Admin'), ('DEVELOPER', 'Developer'), ('BILLING', 'Billing'), ('VIEWER', 'Viewer')], max_length=16)),
                ('token_digest', models.BinaryField(max_length=32, unique=True)),
                ('created_at', models.DateTimeField()),
                ('mailed_at', models.DateTimeField(help_text='When the newest mail with a token was written.')),
                ('expires_at', models.DateTimeField()),
                ('accepted_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='OutboxMessage',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('to_email', models.EmailField(max_length=254)),
                ('subject', models.CharField(max_length=200)),
                ('text_body', models.TextField(blank=True)),
                ('html_body', models.TextField(blank=True)),
                ('created_at', models.DateTimeField(db_index=True)),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField()),
                ('last_error', models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='TermsAcceptance',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('version', models.CharField(max_length=64)),
                ('accepted_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.AddField(
            model_name='apikey',
            name='created_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='apikey',
            name='purpose',
            field=models.CharField(choices=[('API', 'Api'), ('PLAYGROUND', 'Playground')], db_default='API', default='API', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(('purpose__in', ['API', 'PLAYGROUND'])), name='apikey_purpose_known'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('purpose', 'PLAYGROUND'), _negated=True), ('created_by__isnull', False), _connector='OR'), name='apikey_playground_of_somebody'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.UniqueConstraint(condition=models.Q(('purpose', 'PLAYGROUND'), ('revoked_at__isnull', True)), fields=('tenant', 'created_by'), name='apikey_playground_once'),
        ),
        migrations.AddField(
            model_name='invitation',
            name='accepted_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invitation',
            name='invited_by',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='invitation',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invitations', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='outboxmessage',
            name='tenant',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='termsacceptance',
            name='tenant',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='termsacceptance',
            name='user',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='invitation',
            index=models.Index(fields=['tenant', 'created_at'], name='invitation_tenant_created'),
        ),
        migrations.AddIndex(
            model_name='invitation',
            index=models.Index(fields=['invited_by', 'created_at'], name='invitation_inviter_created'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.UniqueConstraint(condition=models.Q(('accepted_at__isnull', True), ('revoked_at__isnull', True)), fields=('tenant', 'email'), name='invitation_open_once'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.CheckConstraint(condition=models.Q(('email', django.db.models.functions.text.Lower('email'))), name='invitation_email_lower'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.CheckConstraint(condition=models.Q(('role__in', ['OWNER', 'ADMIN', 'DEVELOPER', 'BILLING', 'VIEWER'])), name='invitation_role_known'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('accepted_at__isnull', True), ('accepted_by__isnull', True)), models.Q(('accepted_at__isnull', False), ('accepted_by__isnull', False), ('revoked_at__isnull', True)), _connector='OR'), name='invitation_accepted_by_somebody'),
        ),
        migrations.AddConstraint(
            model_name='invitation',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('mailed_at')), ('mailed_at__gte', models.F('created_at'))), name='invitation_period_forward'),
        ),
        migrations.AddIndex(
            model_name='outboxmessage',
            index=models.Index(condition=models.Q(('attempts__lt', 10), ('sent_at__isnull', True)), fields=['next_attempt_at'], name='outbox_due'),
        ),
        migrations.AddConstraint(
            model_name='outboxmessage',
            constraint=models.CheckConstraint(condition=models.Q(('attempts__lte', 10)), name='outbox_attempts_bounded'),
        ),
        migrations.AddConstraint(
            model_name='outboxmessage',
            constraint=models.CheckConstraint(condition=models.Q(django.db.models.lookups.LessThanOrEqual(django.db.models.functions.text.Length('text_body'), 100000), django.db.models.lookups.LessThanOrEqual(django.db.models.functions.text.Length('html_body'), 100000)), name='outbox_body_bounded'),
        ),
        migrations.AddConstraint(
            model_name='outboxmessage',
            constraint=models.CheckConstraint(condition=models.Q(('sent_at__isnull', True), ('attempts__gte', 1), _connector='OR'), name='outbox_sent_was_tried'),
        ),
        migrations.AddConstraint(
            model_name='termsacceptance',
            constraint=models.UniqueConstraint(fields=('user', 'version'), name='termsacceptance_once'),
        ),
        migrations.AddConstraint(
            model_name='termsacceptance',
            constraint=models.CheckConstraint(condition=models.Q(('version', ''), _negated=True), name='termsacceptance_version_named'),
        ),
        run_sql_file(SQL / "people.sql"),
        tenant_wall("tenants_invitation", crossing=("operator", "auth")),
        tenant_wall("tenants_termsacceptance", crossing=("operator", "auth")),
        tenant_wall("tenants_outboxmessage"),
        grant("SELECT", "tenants_invitation", "tenant", "operator", "auth"),
        grant("INSERT", "tenants_invitation", "tenant", "operator"),
        grant("UPDATE (token_digest, mailed_at, expires_at, revoked_at)", "tenants_invitation", "tenant", "operator"),
        # Only who signs people in can say that somebody accepted; and only it makes them a member.
        grant("UPDATE (accepted_at, accepted_by_id)", "tenants_invitation", "auth"),
        grant("SELECT, INSERT", "tenants_termsacceptance", "operator", "auth"),
        # Who reads a password's hash, or writes one, or who is staff, can become somebody else. Operators see
        # who people are, and only whoever signs people in changes them.
        revoke("SELECT, INSERT, UPDATE", "tenants_user", "operator"),
        grant(
            "SELECT (id, email, full_name, is_active, is_staff, is_superuser, date_joined, last_login)",
            "tenants_user",
            "operator",
        ),
        # Everybody may write a mail. Who reads one reads a link that lets people in: tenants never do, and
        # operators see only which mails there are.
        grant("INSERT", "tenants_outboxmessage", "tenant", "operator", "auth", "dataplane"),
        grant("SELECT", "tenants_outboxmessage", "auth", "dataplane"),
        grant(
            "SELECT (id, tenant_id, to_email, subject, created_at, sent_at, attempts, next_attempt_at, last_error)",
            "tenants_outboxmessage",
            "operator",
        ),
        grant(
            "UPDATE (sent_at, attempts, next_attempt_at, last_error, text_body, html_body), DELETE",
            "tenants_outboxmessage",
            "dataplane",
        ),
    ]
