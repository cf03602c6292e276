"""Ceilings on what one call may cost, and what is billed of calls that break off."""

from pathlib import Path

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import F, Q

from portal.kit.migrations import LockTimeout, run_sql_file

HERE = Path(__file__).resolve().parent.parent
CATALOG = HERE.parent / "models_catalog" / "sql"

ACCOUNT_KINDS = ['TOPPED_UP', 'GRANTED', 'RECEIVABLE', 'REVENUE', 'GRANTED_USAGE', 'PROMOTION', 'GOODWILL', 'CASH_CLEARING', 'STRIPE_CLEARING', 'PAYMENT_FEES', 'OVERRUN_EXPENSE', 'WAIVED_EXPENSE', 'UNBILLED_USAGE']
POLICIES = [('DELIVERED', 'Delivered'), ('INPUT', 'Input'), ('NOTHING', 'Nothing')]


def add_check(model, name, condition):
    """Holds for every row from now on. What is there already needs no reading, which would stop all calls for
    as long as it takes: those rows have no ceiling, waive nothing, and met the constraint that this widens."""
    return AddConstraintNotValid(
        model_name=model, constraint=models.CheckConstraint(condition=condition, name=name)
    )


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0009_price_replays"),
        ("models_catalog", "0005_model_addresses"),
    ]

    operations = [
        LockTimeout(),
        migrations.AddField(
            model_name='inferencerequest',
            name='max_cost_nanos',
            field=models.BigIntegerField(blank=True, help_text="The caller's ceiling.", null=True),
        ),
        migrations.AddField(
            model_name='inferencerequest',
            name='cancel_policy',
            field=models.CharField(choices=POLICIES, db_default='DELIVERED', default='DELIVERED', max_length=16),
        ),
        migrations.AddField(
            model_name='hold',
            name='max_cost_nanos',
            field=models.BigIntegerField(blank=True, help_text="The request's ceiling.", null=True),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='waived_nanos',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='billed',
            field=models.CharField(choices=POLICIES, db_default='DELIVERED', default='DELIVERED', max_length=16),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='max_cost_nanos',
            field=models.BigIntegerField(blank=True, help_text="The request's ceiling.", null=True),
        ),
        migrations.RemoveConstraint(model_name='usagerecord', name='usage_amounts_add_up'),
        add_check(
            'usagerecord',
            'usage_amounts_add_up',
            Q(cost_nanos=F('charged_nanos') + F('overrun_nanos') + F('waived_nanos'))
            & Q(charged_nanos__gte=F('granted_nanos') + F('receivable_nanos'))
            & Q(granted_nanos__gte=0, receivable_nanos__gte=0, overrun_nanos__gte=0, waived_nanos__gte=0),
        ),
        add_check('usagerecord', 'usage_within_ceiling', Q(charged_nanos__lte=F('max_cost_nanos'))),
        add_check(
            'usagerecord',
            'usage_waived_by_policy',
            Q(billed='DELIVERED', waived_nanos=0)
            | Q(billed='INPUT')
            | Q(billed='NOTHING', charged_nanos=0, overrun_nanos=0),
        ),
        add_check('hold', 'hold_within_ceiling', Q(amount_nanos__lte=F('max_cost_nanos'))),
        add_check('inferencerequest', 'request_ceiling_positive', Q(max_cost_nanos__gt=0)),
        add_check(
            'inferencerequest',
            'request_cancel_policy_known',
            Q(cancel_policy__in=['DELIVERED', 'INPUT', 'NOTHING']),
        ),
        migrations.AlterField(
            model_name='ledgeraccount',
            name='kind',
            field=models.CharField(choices=[(kind, kind.replace('_', ' ').title()) for kind in ACCOUNT_KINDS], max_length=24),
        ),
        migrations.RemoveConstraint(model_name='ledgeraccount', name='account_kind_known'),
        migrations.AddConstraint(
            model_name='ledgeraccount',
            constraint=models.CheckConstraint(condition=Q(('kind__in', ACCOUNT_KINDS)), name='account_kind_known'),
        ),
        run_sql_file(CATALOG / "price_choice.sql"),
        run_sql_file(HERE / "sql" / "partition_keys.sql"),
        run_sql_file(HERE / "ledger" / "sql" / "waived.sql"),
        run_sql_file(HERE / "sql" / "ceilings.sql"),
        # Its answer has more columns now. Gateways that run name those they know, so they may go on.
        migrations.RunSQL("DROP FUNCTION quotas_admit(jsonb, int, int)", migrations.RunSQL.noop),
        run_sql_file(HERE / "sql" / "admission_under_ceilings.sql"),
        run_sql_file(HERE / "sql" / "settlement_by_policy.sql"),
    ]
