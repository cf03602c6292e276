"""Matching of the backends' records with what the gateway metered, and what is corrected of it."""

from pathlib import Path

from django.db import migrations, models

from portal.kit.migrations import LockTimeout, grant, grant_function, run_sql_file

SQL = Path(__file__).resolve().parent.parent / "reconciliation" / "sql"
# What a record can change of what was found before: not what somebody decided or what money moved.
JUDGED = (
    "state, event_at, gateway_prompt_tokens, gateway_cached_tokens, gateway_completion_tokens, gateway_reasoning_tokens, "
    "feed_prompt_tokens, feed_cached_tokens, feed_completion_tokens, feed_reasoning_tokens, feed_finish, is_late, "
    "revision, resolved_at, reason"
)


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0016_bill_bundles'),
    ]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='discrepancy',
            name='overrun_nanos',
            field=models.BigIntegerField(db_default=0, default=0, help_text='What the backend served beyond the bill, at list price: ours.'),
        ),
        migrations.AddField(
            model_name='discrepancy',
            name='overrun_revision',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, help_text='How often that was posted.'),
        ),
        migrations.AlterField(
            model_name='ledgertransfer',
            name='kind',
            field=models.CharField(choices=[('USAGE', 'Usage'), ('TOP_UP', 'Top Up'), ('GRANT', 'Grant'), ('ADJUSTMENT', 'Adjustment'), ('REFUND', 'Refund'), ('REFUND_REVERSED', 'Refund Reversed'), ('CHARGEBACK', 'Chargeback'), ('REINSTATED', 'Reinstated'), ('PAYMENT_FEE', 'Payment Fee'), ('PAYOUT', 'Payout'), ('SURPLUS', 'Surplus')], max_length=16),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(condition=models.Q(('state', 'OPEN'), models.Q(('kind', 'GATEWAY_ONLY'), _negated=True)), fields=['id'], name='discrepancy_due'),
        ),
        migrations.AddIndex(
            model_name='discrepancy',
            index=models.Index(condition=models.Q(('gateway_prompt_tokens', None), ('kind', 'LOST_SETTLEMENT')), fields=['backend', 'attempt_id'], name='discrepancy_lost'),
        ),
        migrations.AddIndex(
            model_name='feedrecord',
            index=models.Index(condition=models.Q(('verdict', 'EARLY')), fields=['backend', 'subject_id'], name='feedrecord_early'),
        ),
        migrations.AddConstraint(
            model_name='discrepancy',
            constraint=models.CheckConstraint(condition=models.Q(('overrun_nanos__gte', 0)), name='discrepancy_overrun_positive'),
        ),
        run_sql_file(SQL / "matching.sql"),
        run_sql_file(SQL / "correction.sql"),
        # An operator's second try of a line that could not be read is the data plane's.
        grant_function("quotas_take_feed(uuid, timestamptz)", "ingest", "dataplane"),
        grant_function("quotas_drop_misplaced()", "ingest", "dataplane"),
        grant_function("quotas_judge_feed(uuid, uuid[], timestamptz)", "ingest", "dataplane"),
        grant_function("quotas_match_feed_again(uuid, timestamptz, int)", "dataplane"),
        grant_function("quotas_open_gateway_only(uuid, timestamptz, timestamptz, timestamptz)", "dataplane"),
        grant_function("quotas_correct(jsonb, int, bigint, bigint, int)", "dataplane"),
        grant(f"UPDATE ({JUDGED})", "quotas_discrepancy", "ingest"),
    ]
