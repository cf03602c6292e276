"""What the pages of management keys share: scopes in words, and the form of a new key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from django import forms
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.secrets import SecretStore
from tenants.models import ManagementScope

NEVER: Final = "never"

SCOPE_WORDS: Final = MappingProxyType(
    {
        ManagementScope.KEYS_READ: gettext_lazy("See API keys"),
        ManagementScope.KEYS_WRITE: gettext_lazy("Create, change, rotate and revoke API keys"),
        ManagementScope.MODELS_READ: gettext_lazy("See models and prices"),
        ManagementScope.MODELS_WRITE: gettext_lazy("Enable and disable models"),
        ManagementScope.USAGE_READ: gettext_lazy("See usage, calls and receipts"),
        ManagementScope.BALANCE_READ: gettext_lazy("See the balance and transactions"),
        ManagementScope.LIMITS_READ: gettext_lazy("See limits"),
        ManagementScope.LIMITS_WRITE: gettext_lazy("Set and clear limits and budgets"),
        ManagementScope.TENANTS_READ: gettext_lazy("See organizations"),
        ManagementScope.TENANTS_WRITE: gettext_lazy("Suspend and resume organizations"),
        ManagementScope.PRICES_READ: gettext_lazy("See prices, drafts and their effect"),
        ManagementScope.PRICES_WRITE: gettext_lazy("Draft and publish prices"),
        ManagementScope.CREDIT_WRITE: gettext_lazy("Order, approve and refuse credit"),
        ManagementScope.FLEET_READ: gettext_lazy("See pools, backends and deployments"),
        ManagementScope.FLEET_WRITE: gettext_lazy("Change pools, backends and deployments"),
        ManagementScope.BUSINESS_READ: gettext_lazy("See revenue, cost and margin"),
        ManagementScope.AUDIT_READ: gettext_lazy("Read the audit log"),
    }
)


class NewManagementKeyForm(forms.Form):
    """Name, scopes and lifetime."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        help_text=gettext_lazy("What uses it, such as “nightly report”."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    expires = forms.ChoiceField(label=gettext_lazy("Expires"))
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("Scopes"),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": gettext_lazy("Tick at least one scope.")},
    )

    def __init__(
        self,
        *args: Any,
        scopes: Sequence[ManagementScope],
        lifetimes_days: Sequence[int],
        may_live_forever: bool,
        now: datetime,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._now = now
        self.fields["scopes"].choices = [  # type: ignore[attr-defined]
            (scope.value, f"{scope.value} – {SCOPE_WORDS[scope]}") for scope in scopes
        ]
        choices = [(str(days), _("In %(days)d days") % {"days": days}) for days in lifetimes_days]
        if may_live_forever:
            choices.append((NEVER, _("Never")))
        self.fields["expires"].choices = choices  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """`expires_at`: None for never. `chosen_scopes`: as the domain takes them."""
        values = super().clean() or {}
        days = values.get("expires", NEVER)
        values["expires_at"] = None if days == NEVER else self._now + timedelta(days=int(days))
        values["chosen_scopes"] = [ManagementScope(scope) for scope in values.get("scopes", ())]
        return values


def secret_store() -> SecretStore:
    assert settings.SECRET_STORE is not None, "the web process has a secret store"
    return settings.SECRET_STORE
