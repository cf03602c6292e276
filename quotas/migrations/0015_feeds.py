"""Records of the backends' usage feeds, control windows, and what comes of a difference."""

import datetime
from pathlib import Path

import django.db.models.deletion
import django.db.models.expressions
import portal.kit.ids
from django.conf import settings
from django.db import migrations, models

from portal.kit.migrations import CreatePartitionedModel, LockTimeout, grant, run_sql_file, tenant_wall

SQL = Path(__file__).resolve().parent.parent / "reconciliation" / "sql"
FEEDS = ("quotas_feedfile", "quotas_feedstate", "quotas_feedrecord", "quotas_feedquarantine")
FOUND = ("quotas_discrepancy", "quotas_suspenseitem", "quotas_controlwindow")
# What feeds are compared with: never what was asked, never what it cost.
READ_BY_INGEST = {
    "quotas_attempt": "id, request_id, tenant_id, deployment_id, choice_index, started_at, ended_at, outcome, "
    "prompt_tokens, completion_tokens",
    "quotas_inferencerequest": "id, tenant_id, choices, endpoint, admitted_at",
    "quotas_usagerecord": "request_id, revision, tenant_id, prompt_tokens, cached_tokens, completion_tokens, "
    "reasoning_tokens, basis, source",
    "quotas_hold": "request_id, tenant_id, state, resolved_by",
}


class Migration(migrations.Migration):

    dependencies = [
        ('models_catalog', '0007_feeds'),
        ('quotas', '0014_books'),
        ('tenants', '0006_automatic_suspension'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        LockTimeout(),
        migrations.CreateModel(
            name='ControlWindow',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('incarnation', models.PositiveIntegerField()),
                ('from_at', models.DateTimeField()),
                ('to_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('OPEN', 'Open'), ('PROVISIONAL', 'Provisional'), ('CLOSED', 'Closed')], max_length=12)),
                ('attempts', models.BigIntegerField(default=0)),
                ('matched_attempts', models.BigIntegerField(default=0)),
                ('counter_prompt_tokens', models.BigIntegerField()),
                ('counter_completion_tokens', models.BigIntegerField()),
                ('matched_prompt_tokens', models.BigIntegerField()),
                ('matched_completion_tokens', models.BigIntegerField()),
                ('explained_prompt_tokens', models.BigIntegerField()),
                ('explained_completion_tokens', models.BigIntegerField()),
                ('suspense_prompt_tokens', models.BigIntegerField()),
                ('suspense_completion_tokens', models.BigIntegerField()),
                ('causes', models.JSONField(blank=True, default=list)),
                ('computed_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Correction',
            fields=[
                ('pk', models.CompositePrimaryKey('request_id', 'revision', blank=True, editable=False, primary_key=True, serialize=False)),
                ('request_id', models.UUIDField()),
                ('revision', models.PositiveSmallIntegerField()),
                ('cause', models.CharField(choices=[('COUNTS_DIFFER', 'Counts Differ'), ('SETTLEMENT_LOST', 'Settlement Lost'), ('BY_HAND', 'By Hand')], max_length=16)),
                ('delta_nanos', models.BigIntegerField()),
                ('posted_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Discrepancy',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('MISMATCHED', 'Mismatched'), ('LOST_SETTLEMENT', 'Lost Settlement'), ('SURPLUS', 'Surplus'), ('GATEWAY_ONLY', 'Gateway Only'), ('REPEATED', 'Repeated')], max_length=16)),
                ('state', models.CharField(choices=[('OPEN', 'Open'), ('WAITING', 'Waiting'), ('CORRECTED', 'Corrected'), ('EXPLAINED', 'Explained'), ('ACCEPTED', 'Accepted'), ('WAIVED', 'Waived')], default='OPEN', max_length=12)),
                ('attempt_id', models.UUIDField()),
                ('request_id', models.UUIDField()),
                ('event_at', models.DateTimeField()),
                ('opened_at', models.DateTimeField()),
                ('gateway_prompt_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('gateway_cached_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('gateway_completion_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('gateway_reasoning_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('feed_prompt_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('feed_cached_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('feed_completion_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('feed_reasoning_tokens', models.PositiveIntegerField(blank=True, null=True)),
                ('feed_finish', models.CharField(blank=True, choices=[('STOP', 'Stop'), ('LENGTH', 'Length'), ('ABORT', 'Abort'), ('ERROR', 'Error'), ('UNKNOWN', 'Unknown')], default='', max_length=8)),
                ('delta_nanos', models.BigIntegerField(blank=True, help_text='What it changes of the charge: posted, or waiting to be.', null=True)),
                ('is_late', models.BooleanField(default=False)),
                ('revision', models.PositiveSmallIntegerField(blank=True, help_text='Of the usage that it made.', null=True)),
                ('resolved_at', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='FeedFile',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('identity', models.CharField(help_text='Of the file itself, whatever it is called.', max_length=80)),
                ('name', models.CharField(max_length=500)),
                ('offset', models.BigIntegerField(default=0, help_text='In bytes: all before it has been read.')),
                ('mark', models.CharField(blank=True, default='', help_text='Digest of the bytes before the offset.', max_length=32)),
                ('lines', models.BigIntegerField(default=0)),
                ('entries', models.BigIntegerField(default=0, help_text='Lines that say what a call used.')),
                ('quarantined', models.BigIntegerField(default=0)),
                ('last_event_at', models.DateTimeField(blank=True, null=True)),
                ('seen_at', models.DateTimeField()),
                ('read_at', models.DateTimeField(blank=True, help_text='When its end was last reached.', null=True)),
                ('is_closed', models.BooleanField(default=False, help_text='Rotated away: nothing more is written to it.')),
            ],
        ),
        migrations.CreateModel(
            name='FeedQuarantine',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('offset', models.BigIntegerField(help_text='Of a file, in bytes; of a pushed body, its number in it.')),
                ('length', models.BigIntegerField()),
                ('sha256', models.BinaryField(max_length=32)),
                ('reason', models.CharField(max_length=32)),
                ('detail', models.CharField(blank=True, default='', max_length=200)),
                ('body', models.CharField(blank=True, default='', max_length=4000)),
                ('received_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('OPEN', 'Open'), ('READ', 'Read'), ('DISMISSED', 'Dismissed')], default='OPEN', max_length=12)),
                ('resolved_at', models.DateTimeField(blank=True, null=True)),
                ('note', models.CharField(blank=True, default='', max_length=500)),
            ],
        ),
        CreatePartitionedModel(
            partition_by='subject_id',
            name='FeedRecord',
            fields=[
                ('pk', models.CompositePrimaryKey('subject_id', 'content_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('subject_id', models.UUIDField()),
                ('content_id', models.UUIDField()),
                ('part', models.PositiveSmallIntegerField(default=0, help_text='Of a list of inputs.')),
                ('wire_id', models.CharField(blank=True, default='', help_text='Of foreign records only.', max_length=200)),
                ('prompt_tokens', models.PositiveIntegerField()),
                ('cached_tokens', models.PositiveIntegerField(blank=True, help_text='Empty when not told.', null=True)),
                ('completion_tokens', models.PositiveIntegerField()),
                ('reasoning_tokens', models.PositiveIntegerField(blank=True, help_text='Empty when not told.', null=True)),
                ('finish', models.CharField(choices=[('STOP', 'Stop'), ('LENGTH', 'Length'), ('ABORT', 'Abort'), ('ERROR', 'Error'), ('UNKNOWN', 'Unknown')], max_length=8)),
                ('event_at', models.DateTimeField(help_text='When the backend was done; else when it was read.')),
                ('received_at', models.DateTimeField()),
                ('verdict', models.CharField(choices=[('MATCHED', 'Matched'), ('MISMATCHED', 'Mismatched'), ('EARLY', 'Early'), ('REPEATED', 'Repeated'), ('FOREIGN', 'Foreign')], max_length=12)),
                ('is_late', models.BooleanField(default=False, help_text='Its window was closed already.')),
            ],
        ),
        migrations.CreateModel(
            name='FeedState',
            fields=[
                ('feed', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='models_catalog.usagefeed')),
                ('complete_to', models.DateTimeField(blank=True, help_text='Before grace.', null=True)),
                ('heard_at', models.DateTimeField(blank=True, help_text='When it last said anything.', null=True)),
                ('error', models.CharField(blank=True, default='', max_length=200)),
            ],
        ),
        migrations.CreateModel(
            name='SuspenseItem',
            fields=[
                ('id', models.UUIDField(default=portal.kit.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('RECORD', 'Record'), ('COUNTER', 'Counter')], max_length=8)),
                ('state', models.CharField(choices=[('OPEN', 'Open'), ('EXPLAINED', 'Explained'), ('WRITTEN_OFF', 'Written Off')], default='OPEN', max_length=12)),
                ('subject_id', models.UUIDField(blank=True, help_text='Of a record.', null=True)),
                ('event_at', models.DateTimeField()),
                ('prompt_tokens', models.BigIntegerField()),
                ('completion_tokens', models.BigIntegerField()),
                ('opened_at', models.DateTimeField()),
                ('resolved_at', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
            ],
        ),
        # Rows that are there met a narrower constraint, so they need no reading.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE quotas_usagerecord DROP CONSTRAINT usage_kinds_known, "
                    "ADD CONSTRAINT usage_kinds_known CHECK ("
                    "basis IN ('FINAL_USAGE', 'CHECKPOINT', 'EVENTS', 'NOTHING') "
                    "AND provenance IN ('MEASURED', 'ESTIMATED', 'CORRECTED') "
                    "AND source IN ('GATEWAY', 'SWEEPER', 'FEED')) NOT VALID",
                    migrations.RunSQL.noop,
                )
            ],
            state_operations=[
                migrations.RemoveConstraint(
                    model_name='usagerecord',
                    name='usage_kinds_known',
                ),
                migrations.AlterField(
                    model_name='usagerecord',
                    name='provenance',
                    field=models.CharField(choices=[('MEASURED', 'Measured'), ('ESTIMATED', 'Estimated'), ('CORRECTED', 'Corrected')], max_length=16),
                ),
                migrations.AddConstraint(
                    model_name='usagerecord',
                    constraint=models.CheckConstraint(condition=models.Q(('basis__in', ['FINAL_USAGE', 'CHECKPOINT', 'EVENTS', 'NOTHING']), ('provenance__in', ['MEASURED', 'ESTIMATED', 'CORRECTED']), ('source__in', ['GATEWAY', 'SWEEPER', 'FEED'])), name='usage_kinds_known'),
                ),
            ],
        ),
        migrations.AddField(
            model_name='controlwindow',
            name='backend',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingbackend'),
        ),
        migrations.AddField(
            model_name='correction',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='discrepancy',
            name='backend',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingbackend'),
        ),
        migrations.AddField(
            model_name='discrepancy',
            name='resolved_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='discrepancy',
            name='tenant',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
        ),
        migrations.AddField(
            model_name='feedfile',
            name='feed',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.usagefeed'),
        ),
        migrations.AddField(
            model_name='feedquarantine',
            name='feed',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.usagefeed'),
        ),
        migrations.AddField(
            model_name='feedquarantine',
            name='file',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.feedfile'),
        ),
        migrations.AddField(
            model_name='feedrecord',
            name='backend',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingbackend'),
        ),
        migrations.AddField(
            model_name='feedrecord',
            name='feed',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.usagefeed'),
        ),
        migrations.AddField(
            model_name='suspenseitem',
            name='backend',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='models_catalog.servingbackend'),
        ),
        migrations.AddField(
            model_name='suspenseitem',
            name='resolved_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='suspenseitem',
            name='window',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='quotas.controlwindow'),
        ),
        migrations.AddIndex(
            model_name='controlwindow',
            index=models.Index(fields=['backend', '-to_at'], name='window_backend'),
        ),
        migrations.AddIndex(
            model_name='controlwindow',
            index=models.Index(condition=models.Q(('state', 'CLOSED'), _negated=True), fields=['to_at'], name='window_not_closed'),
        ),
        migrations.AddConstraint(
            model_name='controlwindow',
            constraint=models.UniqueConstraint(fields=('backend', 'incarnation', 'from_at'), name='window_once'),
        ),
        migrations.AddConstraint(
            model_name='controlwindow',
            constraint=models.CheckConstraint(condition=models.Q(('from_at__lt', models.F('to_at'))), name='window_period'),
        ),
        migrations.AddConstraint(
            model_name='controlwindow',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['OPEN', 'PROVISIONAL', 'CLOSED'])), name='window_state_known'),
        ),
        migrations.AddConstraint(
            model_name='controlwindow',
            constraint=models.CheckConstraint(condition=models.Q(('counter_completion_tokens', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('matched_completion_tokens'), '+', models.F('explained_completion_tokens')), '+', models.F('suspense_completion_tokens'))), ('counter_prompt_tokens', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('matched_prompt_tokens'), '+', models.F('explained_prompt_tokens')), '+', models.F('suspense_prompt_tokens')))), name='window_adds_up'),
        ),
        migrations.AddConstraint(
            model_name='controlwindow',
            constraint=models.CheckConstraint(condition=models.Q(('attempts__gte', models.F('matched_attempts')), ('matched_attempts__gte', 0), ('counter_completion_tokens__gte', 0), ('counter_prompt_tokens__gte', 0)), name='window_counts'),
        ),
        migrations.AddIndex(
            model_name='correction',
            index=models.Index(fields=['tenant', '-posted_at'], name='correction_tenant'),
        ),
        migrations.AddConstraint(
            model_name='correction',
            constraint=models.CheckConstraint(condition=models.Q(('cause__in', ['COUNTS_DIFFER', 'SETTLEMENT_LOST', 'BY_HAND'])), name='correction_cause_known'),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(fields=['state', '-id'], name='discrepancy_state'),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(fields=['backend', 'event_at'], name='discrepancy_backend'),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(fields=['tenant', '-id'], name='discrepancy_tenant'),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(fields=['request_id'], name='discrepancy_request'),
        ),
        migrations.AddConstraint(
            model_name='discrepancy',
            constraint=models.UniqueConstraint(fields=('attempt_id', 'kind'), name='discrepancy_once'),
        ),
        migrations.AddConstraint(
            model_name='discrepancy',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['MISMATCHED', 'LOST_SETTLEMENT', 'SURPLUS', 'GATEWAY_ONLY', 'REPEATED']), ('state__in', ['OPEN', 'WAITING', 'CORRECTED', 'EXPLAINED', 'ACCEPTED', 'WAIVED'])), name='discrepancy_kinds_known'),
        ),
        migrations.AddConstraint(
            model_name='discrepancy',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('resolved_at', None), ('state__in', ('OPEN', 'WAITING'))), models.Q(models.Q(('state__in', ('OPEN', 'WAITING')), _negated=True), models.Q(('resolved_at', None), _negated=True)), _connector='OR'), name='discrepancy_resolved_with_time'),
        ),
        migrations.AddConstraint(
            model_name='discrepancy',
            constraint=models.CheckConstraint(condition=models.Q(('revision', None), ('state', 'CORRECTED'), _connector='OR'), name='discrepancy_revision_of_corrected'),
        ),
        migrations.AddConstraint(
            model_name='feedfile',
            constraint=models.UniqueConstraint(fields=('feed', 'identity'), name='feedfile_once'),
        ),
        migrations.AddConstraint(
            model_name='feedfile',
            constraint=models.CheckConstraint(condition=models.Q(('entries__gte', 0), ('lines__gte', 0), ('offset__gte', 0), ('quarantined__gte', 0), ('lines__gte', django.db.models.expressions.CombinedExpression(models.F('entries'), '+', models.F('quarantined')))), name='feedfile_counts'),
        ),
        migrations.AddIndex(
            model_name='feedquarantine',
            index=models.Index(fields=['feed', '-id'], name='quarantine_feed'),
        ),
        migrations.AddConstraint(
            model_name='feedquarantine',
            constraint=models.UniqueConstraint(fields=('feed', 'file', 'offset', 'sha256'), name='quarantine_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='feedquarantine',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('resolved_at', None), ('state', 'OPEN')), models.Q(('state__in', ('READ', 'DISMISSED')), models.Q(('resolved_at', None), _negated=True)), _connector='OR'), name='quarantine_resolved_with_time'),
        ),
        migrations.AddConstraint(
            model_name='feedquarantine',
            constraint=models.CheckConstraint(condition=models.Q(('length__gte', 0), ('offset__gte', 0)), name='quarantine_place'),
        ),
        migrations.AddConstraint(
            model_name='feedquarantine',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='quarantine_reason_given'),
        ),
        migrations.AddConstraint(
            model_name='feedquarantine',
            constraint=models.CheckConstraint(condition=models.Q(('file', None), ('body', ''), _connector='OR'), name='quarantine_no_text_of_files'),
        ),
        migrations.AddIndex(
            model_name='feedrecord',
            index=models.Index(condition=models.Q(('verdict', 'MATCHED'), _negated=True), fields=['backend', 'event_at'], name='feedrecord_open'),
        ),
        migrations.AddConstraint(
            model_name='feedrecord',
            constraint=models.CheckConstraint(condition=models.Q(('finish__in', ['STOP', 'LENGTH', 'ABORT', 'ERROR', 'UNKNOWN']), ('verdict__in', ['MATCHED', 'MISMATCHED', 'EARLY', 'REPEATED', 'FOREIGN']), models.Q(('cached_tokens', None), ('cached_tokens__lte', models.F('prompt_tokens')), _connector='OR'), models.Q(('reasoning_tokens', None), ('reasoning_tokens__lte', models.F('completion_tokens')), _connector='OR')), name='feedrecord_whole'),
        ),
        migrations.AddIndex(
            model_name='suspenseitem',
            index=models.Index(fields=['state', '-id'], name='suspense_state'),
        ),
        migrations.AddIndex(
            model_name='suspenseitem',
            index=models.Index(fields=['backend', 'event_at'], name='suspense_backend'),
        ),
        migrations.AddConstraint(
            model_name='suspenseitem',
            constraint=models.UniqueConstraint(fields=('kind', 'subject_id', 'window'), name='suspense_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='suspenseitem',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'RECORD'), ('subject_id__isnull', False), ('window', None)), models.Q(('kind', 'COUNTER'), ('subject_id', None), ('window__isnull', False)), _connector='OR'), name='suspense_of_record_or_window'),
        ),
        migrations.AddConstraint(
            model_name='suspenseitem',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('resolved_at', None), ('state', 'OPEN')), models.Q(('state__in', ('EXPLAINED', 'WRITTEN_OFF')), models.Q(('resolved_at', None), _negated=True)), _connector='OR'), name='suspense_resolved_with_time'),
        ),
        migrations.AddConstraint(
            model_name='feedstate',
            constraint=models.CheckConstraint(condition=models.Q(('complete_to', None), ('complete_to__gte', datetime.datetime(2000, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)), _connector='OR'), name='feedstate_complete_to_sane'),
        ),
        run_sql_file(SQL / "feeds.sql"),
        migrations.RunSQL("SELECT quotas_make_partitions(7)", migrations.RunSQL.noop),
        *(tenant_wall(table, crossing=("operator", "dataplane", "ingest")) for table in ("quotas_discrepancy", "quotas_correction")),
        # Members read why their usage was corrected; what is still in dispute is between us and the backends.
        grant("SELECT", "quotas_correction", "tenant", "operator", "dataplane"),
        grant("INSERT", "quotas_correction", "dataplane"),
        grant("SELECT", [*FEEDS, *FOUND], "operator", "dataplane", "ingest"),
        grant("INSERT", [*FEEDS, *FOUND], "dataplane"),
        # Whoever takes records in cuts no windows.
        grant("INSERT", [*FEEDS, "quotas_discrepancy", "quotas_suspenseitem"], "ingest"),
        # A record never changes; how it stands to the gateway's word may.
        grant("UPDATE (verdict, is_late)", "quotas_feedrecord", "dataplane", "ingest"),
        grant("UPDATE", "quotas_feedfile, quotas_feedstate, quotas_feedquarantine", "dataplane", "ingest"),
        grant("UPDATE", "quotas_discrepancy, quotas_suspenseitem, quotas_controlwindow", "dataplane"),
        grant("UPDATE (state, resolved_at, note)", "quotas_feedquarantine", "operator"),
        grant("UPDATE (state, resolved_at, resolved_by_id, reason)", "quotas_discrepancy, quotas_suspenseitem", "operator"),
        *(grant(f"SELECT ({columns})", table, "ingest") for table, columns in READ_BY_INGEST.items()),
        *(
            migrations.RunSQL(
                f"CREATE POLICY ingest_read ON {table} FOR SELECT TO sluice_ingest USING (true)",
                migrations.RunSQL.noop,
            )
            for table in READ_BY_INGEST
        ),
        grant("SELECT", "quotas_countersample", "ingest"),
    ]
