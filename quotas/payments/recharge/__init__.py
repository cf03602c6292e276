"""Auto-recharge: credit is bought by itself, with a saved method, when the balance falls below a line."""

from quotas.payments.recharge.charging import (
    NothingToConfirm,
    StartReport,
    confirm_on_session,
    follow_recharge,
    start_due_recharges,
)
from quotas.payments.recharge.methods import (
    TooManySetups,
    apply_payment_method,
    apply_setup,
    offer_paid_method,
    start_setup,
)
from quotas.payments.recharge.outcomes import UnexpectedIntent, apply_recharge_intent
from quotas.payments.recharge.queries import RechargeAttempt, RechargeView, recharge_view
from quotas.payments.recharge.rows import MAX_DECLINES, RechargeReason
from quotas.payments.recharge.settings import FieldProblem, InvalidRecharge, Problem, set_recharge, turn_off

__all__ = [
    "MAX_DECLINES",
    "FieldProblem",
    "InvalidRecharge",
    "NothingToConfirm",
    "Problem",
    "RechargeAttempt",
    "RechargeReason",
    "RechargeView",
    "StartReport",
    "TooManySetups",
    "UnexpectedIntent",
    "apply_payment_method",
    "apply_recharge_intent",
    "apply_setup",
    "confirm_on_session",
    "follow_recharge",
    "offer_paid_method",
    "recharge_view",
    "set_recharge",
    "start_due_recharges",
    "start_setup",
    "turn_off",
]
