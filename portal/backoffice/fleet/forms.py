"""The forms of the fleet. Their fields have the names of the entries that the domain takes."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from models_catalog.fleet.entries import (
    CAPABILITY,
    MAX_CODE_LENGTH,
    MAX_CONCURRENCY,
    MAX_CONTEXT_TOKENS,
    MAX_CREDENTIAL_LENGTH,
    AbilitiesEntry,
    BackendEntry,
    CapacityEntry,
    CostEntry,
    DeploymentEntry,
    InvalidEntry,
    PoolEntry,
    UrlFault,
    check_credential,
    fault_of_url,
)
from models_catalog.models.costs import (
    MAX_ACCELERATORS,
    MAX_CAPACITY_TOKENS_PER_S,
    MAX_NANOS_PER_ACCELERATOR_HOUR,
    MAX_NANOS_PER_KWH,
    MAX_POWER_WATTS,
    MAX_PUE_THOUSANDTHS,
    MAX_WEIGHT_THOUSANDTHS,
    MIN_PUE_THOUSANDTHS,
    WHOLE_PPM,
)
from models_catalog.models.fleet import MAX_CONFIGURATION_LENGTH
from portal.backoffice.fleet.fields import ScaledField, UtcMomentField
from portal.backoffice.fleet.rows import ENGINE_NAMES
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id

EntryT = TypeVar("EntryT", PoolEntry, BackendEntry, DeploymentEntry, AbilitiesEntry, CostEntry, CapacityEntry)

PLAIN: Final = {"autocomplete": "off", "spellcheck": "false"}
MONO: Final = {**PLAIN, "class": "mono"}

URL_FAULTS: Final[dict[UrlFault, str | Promise]] = {
    UrlFault.TOO_LONG: gettext_lazy("An address has at most 500 characters."),
    UrlFault.INVALID: gettext_lazy("This is not a valid address."),
    UrlFault.SCHEME: gettext_lazy("The address begins with http:// or https:// and names a host."),
    UrlFault.CREDENTIALS: gettext_lazy("Leave the credential out of the address: it has its own field."),
    UrlFault.QUERY: gettext_lazy("The address has no query and no fragment."),
    UrlFault.VERSION: gettext_lazy("Leave /v1 out: it is added with each call."),
}


class ReasonForm(forms.Form):
    """Why. Every change of the fleet says so in the audit log."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        min_length=3,
        max_length=500,
        help_text=gettext_lazy("It goes into the audit log."),
        widget=forms.TextInput(attrs=PLAIN),
    )

    def entry(self, kind: type[EntryT], **fixed: Any) -> EntryT:
        """The valid fields as what the domain takes; `fixed` are those that are not asked."""
        names = [name for name in kind.__dataclass_fields__ if name not in fixed]
        return kind(**{name: self.cleaned_data[name] for name in names}, **fixed)


class ConfirmForm(ReasonForm):
    """The name of what is about to stop working, typed by whoever stops it."""

    confirm = forms.CharField(max_length=200, widget=forms.TextInput(attrs=PLAIN))
    field_order: Sequence[str] = ("confirm", "reason")

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        self.fields["confirm"].label = _("Type %(name)s to confirm") % {"name": name}
        self.fields["confirm"].widget.attrs["data-confirm-name"] = name

    def clean_confirm(self) -> str:
        if self.cleaned_data["confirm"] != self.name:
            raise ValidationError(_("That is not its name."))
        return self.name


class CodeField(forms.CharField):
    """What a thing is called for good; not asked again once it exists."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("label", gettext_lazy("Code"))
        options.setdefault(
            "help_text", gettext_lazy("Letters, digits, hyphens and underscores. It stays as it is.")
        )
        super().__init__(max_length=MAX_CODE_LENGTH, widget=forms.TextInput(attrs=MONO), **options)

    def clean(self, value: Any) -> Any:
        code = str(super().clean(value))
        if not code.isascii() or not code.replace("-", "").replace("_", "").isalnum():
            raise ValidationError(_("Use letters, digits, hyphens and underscores only."))
        return code


class PoolForm(ReasonForm):
    code = CodeField()
    name = forms.CharField(label=gettext_lazy("Name"), max_length=120, widget=forms.TextInput(attrs=PLAIN))
    accelerator_kind = forms.CharField(
        label=gettext_lazy("Accelerator"),
        max_length=64,
        help_text=gettext_lazy("All of a pool are alike, such as NVIDIA H100 80 GB, Ascend 910B or Xeon 6."),
        widget=forms.TextInput(attrs=PLAIN),
    )
    region = forms.CharField(label=gettext_lazy("Region"), max_length=64, widget=forms.TextInput(attrs=PLAIN))
    field_order = ("code", "name", "accelerator_kind", "region", "reason")


class BackendForm(ReasonForm):
    code = CodeField()
    engine = forms.ChoiceField(
        label=gettext_lazy("Engine"),
        choices=list(ENGINE_NAMES.items()),
        help_text=gettext_lazy("Generic is any server that speaks OpenAI's API."),
    )
    engine_version = forms.CharField(
        label=gettext_lazy("Version"), max_length=64, required=False, widget=forms.TextInput(attrs=PLAIN)
    )
    base_url = forms.CharField(
        label=gettext_lazy("Base URL"),
        max_length=500,
        help_text=gettext_lazy("Where the engine answers, without /v1."),
        widget=forms.TextInput(attrs={**MONO, "inputmode": "url"}),
    )
    max_concurrency = forms.IntegerField(
        label=gettext_lazy("Calls at a time"),
        min_value=1,
        max_value=MAX_CONCURRENCY,
        help_text=gettext_lazy("That it serves well; calls beyond go elsewhere or wait."),
    )
    configuration = forms.CharField(
        label=gettext_lazy("Configuration"),
        max_length=MAX_CONFIGURATION_LENGTH,
        required=False,
        help_text=gettext_lazy("Notes for operators: flags, quantisation, driver versions. No secrets."),
        widget=forms.Textarea(attrs={**MONO, "rows": 4}),
    )
    credential = forms.CharField(
        label=gettext_lazy("Credential"),
        max_length=MAX_CREDENTIAL_LENGTH,
        required=False,
        help_text=gettext_lazy(
            "The bearer token that the engine wants. It is stored encrypted and never shown again."
        ),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    field_order = (
        "code",
        "engine",
        "engine_version",
        "base_url",
        "max_concurrency",
        "credential",
        "configuration",
        "reason",
    )

    def clean_base_url(self) -> str:
        text = str(self.cleaned_data["base_url"]).rstrip("/")
        fault = fault_of_url(text)
        if fault is not None:
            raise ValidationError(str(URL_FAULTS[fault]))
        return text

    def clean_configuration(self) -> str:
        return str(self.cleaned_data["configuration"]).replace("\r\n", "\n")

    def clean_credential(self) -> str:
        return checked_credential(self.cleaned_data["credential"])


class CredentialForm(ReasonForm):
    """A new credential, or none any more."""

    credential = forms.CharField(
        label=gettext_lazy("New credential"),
        max_length=MAX_CREDENTIAL_LENGTH,
        required=False,
        help_text=gettext_lazy(
            "It replaces the stored one with the next call. Nobody can read it afterwards."
        ),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    remove = forms.BooleanField(label=gettext_lazy("Send no credential any more"), required=False)
    field_order = ("credential", "remove", "reason")

    def clean_credential(self) -> str:
        return checked_credential(self.cleaned_data["credential"])

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "credential" not in self.errors and bool(values.get("credential")) == bool(values.get("remove")):
            self.add_error("credential", _("Enter the new credential, or tick that there is none any more."))
        return values


class DeploymentForm(ReasonForm):
    """model_id: the public id of a model. Valid, it is the id."""

    model_id = forms.ChoiceField(label=gettext_lazy("Model"))
    upstream_model = forms.CharField(
        label=gettext_lazy("Name at the backend"),
        max_length=200,
        help_text=gettext_lazy("How the backend lists it; a probe of the backend shows its list."),
        widget=forms.TextInput(attrs=MONO),
    )
    field_order = ("model_id", "upstream_model", "reason")

    def __init__(self, *args: Any, models: Sequence[tuple[UUID, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["model_id"].choices = [  # type: ignore[attr-defined]
            (public_id(PREFIXES["model"], model_id), slug) for model_id, slug in models
        ]

    def clean_model_id(self) -> UUID:
        try:
            return parse_public_id(PREFIXES["model"], self.cleaned_data["model_id"])
        except InvalidPublicId:
            raise ValidationError(_("There is no such model.")) from None


class AbilitiesForm(ReasonForm):
    """What a deployment can do where that is less than its model can. Valid, capabilities are a tuple, or
    None for all."""

    quantisation = forms.CharField(
        label=gettext_lazy("Quantisation"),
        max_length=64,
        required=False,
        help_text=gettext_lazy("Of its weights, such as FP8, AWQ or Q4_K_M."),
        widget=forms.TextInput(attrs=PLAIN),
    )
    context_tokens = forms.IntegerField(
        label=gettext_lazy("Context, tokens"),
        min_value=1,
        max_value=MAX_CONTEXT_TOKENS,
        required=False,
        help_text=gettext_lazy("Where it has less than the model. Empty: as much."),
    )
    capabilities = forms.CharField(
        label=gettext_lazy("Capabilities"),
        max_length=1100,
        required=False,
        help_text=gettext_lazy(
            "Where it cannot do all that the model can: those it has, with commas. Empty: all."
        ),
        widget=forms.TextInput(attrs=MONO),
    )
    has_none = forms.BooleanField(label=gettext_lazy("It has none of them"), required=False)
    field_order = ("quantisation", "context_tokens", "capabilities", "has_none", "reason")

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        names = tuple(part.strip() for part in str(values.get("capabilities", "")).split(",") if part.strip())
        if names and values.get("has_none"):
            self.add_error("has_none", _("Either name capabilities or tick that it has none."))
        if any(CAPABILITY.fullmatch(name) is None for name in names):
            self.add_error(
                "capabilities", _("Capabilities have small letters, digits and underscores, such as tools.")
            )
        values["capabilities"] = names if names or values.get("has_none") else None
        return values


class CostForm(ReasonForm):
    """What a pool costs from a moment on."""

    currency = forms.ChoiceField(label=gettext_lazy("Currency"))
    accelerators = forms.IntegerField(
        label=gettext_lazy("Accelerators"), min_value=1, max_value=MAX_ACCELERATORS
    )
    depreciation_nanos_per_accelerator_hour = ScaledField(
        label=gettext_lazy("Depreciation per accelerator-hour"),
        places=9,
        low=0,
        high=MAX_NANOS_PER_ACCELERATOR_HOUR,
    )
    other_nanos_per_accelerator_hour = ScaledField(
        label=gettext_lazy("Other cost per accelerator-hour"),
        places=9,
        low=0,
        high=MAX_NANOS_PER_ACCELERATOR_HOUR,
        help_text=gettext_lazy("Rent, staff, network: all that is neither depreciation nor energy."),
    )
    power_watts = ScaledField(
        label=gettext_lazy("Power of the whole pool, kW"),
        places=3,
        low=0,
        high=MAX_POWER_WATTS,
        help_text=gettext_lazy("With its hosts, before the PUE."),
    )
    pue_thousandths = ScaledField(
        label=gettext_lazy("PUE"),
        places=3,
        low=MIN_PUE_THOUSANDTHS,
        high=MAX_PUE_THOUSANDTHS,
        help_text=gettext_lazy("Power usage effectiveness of the site, such as 1.25."),
    )
    energy_nanos_per_kwh = ScaledField(
        label=gettext_lazy("Energy per kWh"), places=9, low=0, high=MAX_NANOS_PER_KWH
    )
    owner = forms.CharField(
        label=gettext_lazy("Owned by"),
        max_length=120,
        required=False,
        help_text=gettext_lazy("Whose hardware it is."),
        widget=forms.TextInput(attrs=PLAIN),
    )
    region = forms.CharField(
        label=gettext_lazy("Region"), max_length=64, required=False, widget=forms.TextInput(attrs=PLAIN)
    )
    active_from = UtcMomentField()
    field_order = (
        "currency",
        "accelerators",
        "depreciation_nanos_per_accelerator_hour",
        "other_nanos_per_accelerator_hour",
        "power_watts",
        "pue_thousandths",
        "energy_nanos_per_kwh",
        "owner",
        "region",
        "active_from",
        "reason",
    )

    def __init__(self, *args: Any, currencies: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["currency"].choices = [(one, one) for one in currencies]  # type: ignore[attr-defined]


class EndCostForm(ConfirmForm):
    """When a pool stops costing anything, because it goes away."""

    active_from = UtcMomentField(
        label=gettext_lazy("Until"), help_text=gettext_lazy("In UTC. Empty: until now.")
    )
    field_order = ("active_from", "confirm", "reason")


class CapacityForm(ReasonForm):
    """What a deployment has of its pool and can carry from a moment on."""

    reserved_ppm = ScaledField(
        label=gettext_lazy("Share of the pool, %"),
        places=4,
        low=0,
        high=WHOLE_PPM,
        help_text=gettext_lazy("So much of what the pool costs is this deployment's, used or idle."),
    )
    capacity_tokens_per_s = forms.IntegerField(
        label=gettext_lazy("Certified capacity, weighted tokens/s"),
        min_value=1,
        max_value=MAX_CAPACITY_TOKENS_PER_S,
        help_text=gettext_lazy("Measured at full load: tokens times their weights, per second."),
    )
    input_weight = ScaledField(
        label=gettext_lazy("Weight of an input token"),
        places=3,
        low=0,
        high=MAX_WEIGHT_THOUSANDTHS,
        help_text=gettext_lazy("How much of an output token's work it is."),
    )
    cached_weight = ScaledField(
        label=gettext_lazy("Weight of a cached input token"), places=3, low=0, high=MAX_WEIGHT_THOUSANDTHS
    )
    output_weight = ScaledField(
        label=gettext_lazy("Weight of an output token"), places=3, low=1, high=MAX_WEIGHT_THOUSANDTHS
    )
    active_from = UtcMomentField()
    field_order = (
        "reserved_ppm",
        "capacity_tokens_per_s",
        "input_weight",
        "cached_weight",
        "output_weight",
        "active_from",
        "reason",
    )


def checked_credential(credential: str) -> str:
    """Errors: ValidationError, which does not repeat it."""
    try:
        check_credential(credential)
    except InvalidEntry:
        raise ValidationError(_("A credential has visible ASCII characters without spaces.")) from None
    return credential
