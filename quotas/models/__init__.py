"""HOW MUCH was used, is held and was paid."""

from quotas.models.ledger import (
    AccountKind,
    LedgerAccount,
    LedgerEntry,
    LedgerTransfer,
    TransferKind,
    Wallet,
)
from quotas.models.metering import (
    Attempt,
    AttemptOutcome,
    Basis,
    Hold,
    HoldState,
    InferenceRequest,
    Provenance,
    UsageRecord,
    UsageRollup,
    UsageSource,
)
from quotas.models.reconciliation import CounterSample
from quotas.models.welcome import WelcomeGrant, WelcomeState

__all__ = [
    "AccountKind",
    "Attempt",
    "AttemptOutcome",
    "Basis",
    "CounterSample",
    "Hold",
    "HoldState",
    "InferenceRequest",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTransfer",
    "Provenance",
    "TransferKind",
    "UsageRecord",
    "UsageRollup",
    "UsageSource",
    "Wallet",
    "WelcomeGrant",
    "WelcomeState",
]
