"""What operators change about the fleet: each a form in a dialog, or a page of its own without scripts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from models_catalog.fleet import operations, queries
from models_catalog.fleet.operations import (
    AbilitiesEntry,
    BackendEntry,
    CapacityEntry,
    CostEntry,
    DeploymentEntry,
    InvalidEntry,
    PoolEntry,
)
from models_catalog.models import FleetState
from portal.backoffice.fleet import pages
from portal.backoffice.fleet.curves import measured_capacity
from portal.backoffice.fleet.forms import (
    AbilitiesForm,
    BackendForm,
    CapacityForm,
    ConfirmForm,
    CostForm,
    CredentialForm,
    DeploymentForm,
    EndCostForm,
    PoolForm,
    ReasonForm,
)
from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from portal.pages.answers import done

FORM_METHODS: Final = ("GET", "HEAD", "POST")
DIALOG_BODY: Final = "#fleet-dialog-body"

# What the domain refuses → the field that it is about, and the words for it.
REFUSALS: Final[Mapping[type[Exception], tuple[str, str | Promise]]] = {
    operations.CodeTaken: ("code", gettext_lazy("Another one has this code.")),
    operations.CredentialNeeded: (
        "credential",
        gettext_lazy("Enter the credential again: the stored one is not sent to another server."),
    ),
    operations.AlreadyDeployed: ("model_id", gettext_lazy("The backend has a deployment of this model.")),
    operations.ModelNotFound: ("model_id", gettext_lazy("There is no such model.")),
    operations.MomentPassed: (
        "active_from",
        gettext_lazy("This moment has passed and something else was in force. Leave it empty for now."),
    ),
    operations.CurrencyWithinHour: (
        "active_from",
        gettext_lazy("A pool changes its currency at a full hour (UTC): enter one."),
    ),
    operations.PoolOversold: (
        "reserved_ppm",
        gettext_lazy("With this share more than the whole pool would be reserved at some moment."),
    ),
    operations.NothingToEnd: ("active_from", gettext_lazy("The pool has no cost then that could end.")),
}

FormT = TypeVar("FormT", bound=ReasonForm)


@dataclass(frozen=True, slots=True)
class Question:
    """How a form is asked: its heading, the button that sends it, and where it leads."""

    title: str
    button: str
    back: str
    text: str = ""
    is_danger: bool = False
    testid: str = "fleet-form"


@operator_page(methods=FORM_METHODS)
def new_pool(request: HttpRequest) -> HttpResponse:
    """A pool without cost or backends."""
    form = _bound(request, PoolForm)
    question = Question(_("Add a pool"), _("Add the pool"), reverse("backoffice:fleet"), testid="pool-form")

    def save() -> str:
        operations.save_pool(entry=form.entry(PoolEntry), **_why(request, form))
        return _("The pool “%(code)s” is added.") % form.cleaned_data

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def edit_pool(request: HttpRequest, pool: str) -> HttpResponse:
    """Name, accelerator and region."""
    row = pages.find_pool(pool)
    form = _bound(request, PoolForm, initial=_initial(row, PoolForm), without=("code",))
    question = Question(
        _("Edit the pool “%(code)s”") % {"code": row.code}, _("Save"), _url("pool", row.public_id)
    )

    def save() -> str:
        entry = form.entry(PoolEntry, code=row.code)
        operations.save_pool(entry=entry, pool_id=row.id, **_why(request, form))
        return _("The pool “%(code)s” is saved.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
@sensitive_post_parameters("credential")
def new_backend(request: HttpRequest, pool: str) -> HttpResponse:
    """A backend in a pool; it serves as soon as a model is deployed on it."""
    row = pages.find_pool(pool)
    form = _bound(request, BackendForm)
    question = Question(
        _("Add a backend to “%(code)s”") % {"code": row.code},
        _("Add the backend"),
        _url("pool", row.public_id),
        testid="backend-form",
    )

    def save() -> str:
        operations.save_backend(
            entry=form.entry(BackendEntry, pool_id=row.id),
            credential=form.cleaned_data["credential"],
            secrets=_secrets(),
            **_why(request, form),
        )
        return _("The backend “%(code)s” is added.") % form.cleaned_data

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
@sensitive_post_parameters("credential")
def edit_backend(request: HttpRequest, backend: str) -> HttpResponse:
    """All of it but its code and its pool; its credential only together with another server."""
    row = pages.find_backend(backend)
    without = ("code",) if row.has_credential else ("code", "credential")
    form = _bound(request, BackendForm, initial=_initial(row, BackendForm), without=without)
    if row.has_credential:
        form.fields["credential"].help_text = _(
            "Only with an address on another server: it has to be entered again then. "
            "Left empty, the stored one stays."
        )
    question = Question(
        _("Edit the backend “%(code)s”") % {"code": row.code}, _("Save"), _url("backend", row.public_id)
    )

    def save() -> str:
        entry = form.entry(BackendEntry, code=row.code, pool_id=row.pool_id)
        operations.save_backend(
            entry=entry,
            backend_id=row.id,
            credential=form.cleaned_data.get("credential") or None,
            secrets=_secrets(),
            **_why(request, form),
        )
        return _("The backend “%(code)s” is saved.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
@sensitive_post_parameters("credential")
def backend_credential(request: HttpRequest, backend: str) -> HttpResponse:
    """Replace the credential, or send none any more. The stored one is never shown."""
    row = pages.find_backend(backend)
    form = _bound(request, CredentialForm)
    question = Question(
        _("Credential of “%(code)s”") % {"code": row.code},
        _("Change the credential"),
        _url("backend", row.public_id),
        text=_("A credential is stored.") if row.has_credential else _("No credential is stored."),
    )

    def save() -> str:
        operations.set_credential(
            backend_id=row.id,
            credential=form.cleaned_data["credential"],
            secrets=_secrets(),
            **_why(request, form),
        )
        return _("The credential of “%(code)s” is changed.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def backend_state(request: HttpRequest, backend: str) -> HttpResponse:
    """GET ?to=… the question; POST with the backend's code as `confirm` when it stops serving."""
    row = pages.find_backend(backend)
    state = _wanted_state(request)
    form = _state_form(request, state, row.code)
    question = _state_question(state, row.code, row.sole_models, _url("backend", row.public_id))

    def save() -> str:
        operations.set_backend_state(backend_id=row.id, state=state, **_why(request, form))
        return _state_done(state, row.code)

    return _answer(request, form, question, save, to=state.value)


@operator_page(methods=FORM_METHODS)
def new_deployment(request: HttpRequest, backend: str) -> HttpResponse:
    """A listed model on a backend; it serves at once."""
    row = pages.find_backend(backend)
    form = _bound(request, DeploymentForm, models=queries.models_to_deploy(backend_id=row.id))
    question = Question(
        _("Deploy a model on “%(code)s”") % {"code": row.code},
        _("Deploy the model"),
        _url("backend", row.public_id),
        testid="deployment-form",
    )

    def save() -> str:
        entry = form.entry(DeploymentEntry, backend_id=row.id)
        operations.save_deployment(entry=entry, **_why(request, form))
        return _("The model is deployed on “%(code)s”.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def edit_deployment(request: HttpRequest, deployment: str) -> HttpResponse:
    """The name that the backend knows the model by."""
    row = pages.find_deployment(deployment)
    initial = {"upstream_model": row.upstream_model}
    form = _bound(request, DeploymentForm, initial=initial, without=("model_id",), models=())
    question = Question(
        _("Edit “%(model)s” on “%(code)s”") % {"model": row.slug, "code": row.backend_code},
        _("Save"),
        _url("deployment", row.public_id),
    )

    def save() -> str:
        entry = form.entry(DeploymentEntry, backend_id=row.backend_id, model_id=row.model_id)
        operations.save_deployment(entry=entry, deployment_id=row.id, **_why(request, form))
        return _("The deployment is saved.")

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def deployment_abilities(request: HttpRequest, deployment: str) -> HttpResponse:
    """What it can do where that is less than its model can."""
    row = pages.find_deployment(deployment)
    initial = {
        "context_tokens": row.context_tokens,
        "capabilities": "" if row.capabilities is None else ", ".join(row.capabilities),
        "has_none": row.capabilities == (),
        "quantisation": row.quantisation,
    }
    form = _bound(request, AbilitiesForm, initial=initial)
    question = Question(
        _("What “%(model)s” on “%(code)s” can do") % {"model": row.slug, "code": row.backend_code},
        _("Save"),
        _url("deployment", row.public_id),
        text=_("Calls that need more than this go to other deployments of the model."),
        testid="abilities-form",
    )

    def save() -> str:
        operations.set_abilities(
            deployment_id=row.id, entry=form.entry(AbilitiesEntry), **_why(request, form)
        )
        return _("The deployment is saved.")

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def deployment_state(request: HttpRequest, deployment: str) -> HttpResponse:
    """GET ?to=… the question; POST with the model's name as `confirm` when it stops serving."""
    row = pages.find_deployment(deployment)
    state = _wanted_state(request)
    form = _state_form(request, state, row.slug)
    sole = (row.slug,) if row.is_sole else ()
    question = _state_question(state, row.slug, sole, _url("deployment", row.public_id))

    def save() -> str:
        operations.set_deployment_state(deployment_id=row.id, state=state, **_why(request, form))
        return _state_done(state, row.slug)

    return _answer(request, form, question, save, to=state.value)


@operator_page(methods=FORM_METHODS)
def pool_cost(request: HttpRequest, pool: str) -> HttpResponse:
    """What a pool costs from a moment on; the form begins with what it costs now."""
    row = pages.find_pool(pool)
    initial = _initial(row.cost, CostForm) if row.cost else {"region": row.region}
    form = _bound(request, CostForm, initial=initial, currencies=settings.CURRENCIES)
    question = Question(
        _("Cost of “%(code)s”") % {"code": row.code},
        _("Set the cost"),
        _url("pool", row.public_id),
        text=_("What is in force ends where this begins; what was in force stays as it was."),
        testid="cost-form",
    )

    def save() -> str:
        operations.set_pool_cost(
            pool_id=row.id,
            entry=form.entry(CostEntry),
            active_from=form.cleaned_data["active_from"],
            now=utc_now(),
            **_why(request, form),
        )
        return _("The cost of “%(code)s” is set.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def end_pool_cost(request: HttpRequest, pool: str) -> HttpResponse:
    """When a pool goes away, it stops costing anything."""
    row = pages.find_pool(pool)
    form = _bound(request, EndCostForm, name=row.code)
    question = Question(
        _("End the cost of “%(code)s”?") % {"code": row.code},
        _("End the cost"),
        _url("pool", row.public_id),
        text=_("From then on the pool costs nothing, and what its models earn is all margin."),
        is_danger=True,
    )

    def save() -> str:
        ends_at: datetime | None = form.cleaned_data["active_from"]
        operations.end_pool_cost(pool_id=row.id, ends_at=ends_at, now=utc_now(), **_why(request, form))
        return _("The cost of “%(code)s” ends.") % {"code": row.code}

    return _answer(request, form, question, save)


@operator_page(methods=FORM_METHODS)
def capacity(request: HttpRequest, deployment: str) -> HttpResponse:
    """What a deployment has and can carry from a moment on; the form begins with what it has now."""
    row = pages.find_deployment(deployment)
    initial = _initial(row.capacity, CapacityForm) if row.capacity else measured_capacity(row.id)
    form = _bound(request, CapacityForm, initial=initial)
    question = Question(
        _("Capacity of “%(model)s” on “%(code)s”") % {"model": row.slug, "code": row.backend_code},
        _("Set the capacity"),
        _url("deployment", row.public_id),
        testid="capacity-form",
    )

    def save() -> str:
        operations.set_capacity(
            deployment_id=row.id,
            entry=form.entry(CapacityEntry),
            active_from=form.cleaned_data["active_from"],
            now=utc_now(),
            **_why(request, form),
        )
        return _("The capacity is set.")

    return _answer(request, form, question, save)


def _bound(request: HttpRequest, kind: type[FormT], *, without: Sequence[str] = (), **options: Any) -> FormT:
    """The form with what was posted. without: fields that are not asked here."""
    data = request.POST if request.method == "POST" else None
    form = kind(data, auto_id="fleet_%s", **options)
    for name in without:
        del form.fields[name]
    return form


def _initial(row: object, kind: type[ReasonForm]) -> dict[str, Any]:
    """What the row holds in the fields of the form."""
    return {name: getattr(row, name) for name in kind.base_fields if hasattr(row, name)}


def _answer(
    request: HttpRequest, form: forms.Form, question: Question, save: Callable[[], str], **hidden: str
) -> HttpResponse:
    """GET the form; POST it, and say what happened, or what is wrong. hidden: parameters that stay."""
    if request.method == "POST" and form.is_valid():
        try:
            return done(request, question.back, save())
        except tuple(REFUSALS) as error:
            field, words = REFUSALS[type(error)]
            form.add_error(field if field in form.fields else None, str(words))
        except InvalidEntry as error:
            # Forms check what the domain does, so these words are for what one of them forgot.
            form.add_error(error.field if error.field in form.fields else None, error.why)
    return show_dialog(
        request,
        "backoffice/fleet/_form.html",
        {
            "form": form,
            "question": question,
            "hidden": hidden,
            "action": request.path,
            "dialog_body": DIALOG_BODY,
        },
        title=question.title,
        section=pages.SECTION,
        status=422 if form.errors else 200,
    )


def _why(request: HttpRequest, form: ReasonForm) -> dict[str, Any]:
    return {"actor": operator_actor(request), "reason": form.cleaned_data["reason"]}


def _wanted_state(request: HttpRequest) -> FleetState:
    """Raises Http404 for what is no state."""
    wanted = request.POST.get("to") if request.method == "POST" else request.GET.get("to")
    try:
        return FleetState(wanted or "")
    except ValueError:
        raise Http404 from None


def _state_form(request: HttpRequest, state: FleetState, name: str) -> ReasonForm:
    if state == FleetState.ACTIVE:
        return _bound(request, ReasonForm)
    return _bound(request, ConfirmForm, name=name)


def _state_question(state: FleetState, name: str, sole: Sequence[str], back: str) -> Question:
    """What follows from the change, in words."""
    lost = (
        " " + _("Nothing else serves %(models)s: calls to it are refused.") % {"models": ", ".join(sole)}
        if sole
        else ""
    )
    if state == FleetState.ACTIVE:
        return Question(
            _("Enable “%(name)s”?") % {"name": name},
            _("Enable"),
            back,
            text=_("New calls go to it within a second."),
            testid="state-form",
        )
    if state == FleetState.DRAINING:
        text = _("It gets no new calls from now on; those in flight end as if nothing had happened.")
        title, button = _("Drain “%(name)s”?") % {"name": name}, _("Drain")
    else:
        text = _("It gets no new calls, and its counters are no longer read. Drain it first to see it empty.")
        title, button = _("Disable “%(name)s”?") % {"name": name}, _("Disable")
    return Question(title, button, back, text=text + lost, is_danger=True, testid="state-form")


def _state_done(state: FleetState, name: str) -> str:
    words = {
        FleetState.ACTIVE: _("“%(name)s” is enabled."),
        FleetState.DRAINING: _("“%(name)s” is draining."),
        FleetState.DISABLED: _("“%(name)s” is disabled."),
    }
    return words[state] % {"name": name}


def _secrets() -> SecretStore:
    assert settings.SECRET_STORE is not None, "the web process has a secret store"
    return settings.SECRET_STORE


def _url(name: str, public_id: str) -> str:
    return reverse(f"backoffice:{name}", args=[public_id])
