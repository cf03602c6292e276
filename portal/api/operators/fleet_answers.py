"""The fleet as operators see and write it: what the endpoints beside this take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.conf import settings
from rest_framework import serializers

from models_catalog.fleet.operations import CurrencyWithinHour, InvalidEntry
from models_catalog.fleet.queries import CapacityRow, CostRow, DeploymentRow, Phase, PoolRow
from models_catalog.models import Engine, FleetState
from portal.api.endpoints import Answer
from portal.api.fields import Moment, Money, OneOf, PublicId, Strict, page_of
from portal.api.operators.price_answers import Price
from portal.api.operators.tenants import reason_field
from portal.api.paging import Listing, page_json
from portal.api.problems import INVALID, FieldError, Problem
from portal.kit.money import amount_to_decimal_text

TAG: Final = "operators: fleet"
RowT = TypeVar("RowT")

# Fields of the domain that bodies call otherwise.
_FIELDS: Final[Mapping[str, str]] = {
    "input_weight": "input_weight_thousandths",
    "cached_weight": "cached_weight_thousandths",
    "output_weight": "output_weight_thousandths",
    "depreciation_nanos_per_accelerator_hour": "depreciation_per_accelerator_hour",
    "other_nanos_per_accelerator_hour": "other_per_accelerator_hour",
    "energy_nanos_per_kwh": "energy_per_kwh",
}


class CostAmount(Price):
    """A part of a cost, up to `most_nanos`."""

    def __init__(self, *, most_nanos: int, **options: Any) -> None:
        super().__init__(**options)
        self.most_nanos = most_nanos

    def to_internal_value(self, data: Any) -> int:
        amount_nanos = super().to_internal_value(data)
        if amount_nanos > self.most_nanos:
            most = amount_to_decimal_text(self.most_nanos)
            raise serializers.ValidationError(f"Not more than {most}.", "amount")
        return amount_nanos


class HourCostAnswer(serializers.Serializer[Any]):
    """What an hour of a pool costs: depreciation + energy + other = total, exactly."""

    total = Money(source="total_nanos")
    depreciation = Money(source="depreciation_nanos")
    energy = Money(source="energy_nanos")
    other = Money(source="other_nanos")


class PoolCostAnswer(serializers.Serializer[Any]):
    """A version of what a pool costs. power_watts: of the whole pool with its hosts, before the PUE."""

    id = PublicId(kind="pool_cost")
    phase = serializers.ChoiceField(choices=[phase.value for phase in Phase])
    currency = serializers.CharField()
    accelerators = serializers.IntegerField()
    depreciation_per_accelerator_hour = Money(source="depreciation_nanos_per_accelerator_hour")
    other_per_accelerator_hour = Money(source="other_nanos_per_accelerator_hour")
    power_watts = serializers.IntegerField()
    pue_thousandths = serializers.IntegerField()
    energy_per_kwh = Money(source="energy_nanos_per_kwh")
    owner = serializers.CharField(allow_blank=True)
    region = serializers.CharField(allow_blank=True)
    active_from = Moment(source="period.active_from")
    active_to = Moment(source="period.active_to", allow_null=True)
    hour = HourCostAnswer()


class CapacityAnswer(serializers.Serializer[Any]):
    """What a deployment has of its pool, and how many weighted tokens a second it can carry."""

    id = PublicId(kind="capacity")
    phase = serializers.ChoiceField(choices=[phase.value for phase in Phase])
    reserved_ppm = serializers.IntegerField(help_text="Share of the pool in millionths.")
    input_weight_thousandths = serializers.IntegerField(source="input_weight")
    cached_weight_thousandths = serializers.IntegerField(source="cached_weight")
    output_weight_thousandths = serializers.IntegerField(source="output_weight")
    capacity_tokens_per_s = serializers.IntegerField()
    active_from = Moment(source="period.active_from")
    active_to = Moment(source="period.active_to", allow_null=True)


class DeploymentAnswer(serializers.Serializer[Any]):
    """A model on a backend. serves: it, its backend and its model are all in service. is_sole: nothing else
    serves the model now."""

    id = PublicId(kind="deployment")
    model = serializers.CharField(source="slug")
    backend = PublicId(kind="backend", source="backend_id")
    pool = PublicId(kind="pool", source="pool_id")
    upstream_model = serializers.CharField(help_text="How the backend calls it.")
    state = serializers.ChoiceField(choices=FleetState.choices)
    serves = serializers.BooleanField()
    is_sole = serializers.BooleanField()
    capacity = CapacityAnswer(allow_null=True)


class BackendAnswer(serializers.Serializer[Any]):
    """One running engine. Of its credential nothing is said but whether there is one."""

    id = PublicId(kind="backend")
    code = serializers.CharField()
    pool = PublicId(kind="pool", source="pool_id")
    engine = serializers.ChoiceField(choices=Engine.choices)
    engine_version = serializers.CharField(allow_blank=True)
    base_url = serializers.CharField()
    max_concurrency = serializers.IntegerField()
    configuration = serializers.CharField(allow_blank=True)
    has_credential = serializers.BooleanField()
    state = serializers.ChoiceField(choices=FleetState.choices)
    deployments = DeploymentAnswer(many=True)


class PoolAnswer(serializers.Serializer[Any]):
    """Accelerators of one kind, all that runs on them, and what they cost now."""

    id = PublicId(kind="pool")
    code = serializers.CharField()
    name = serializers.CharField()
    accelerator_kind = serializers.CharField()
    region = serializers.CharField()
    reserved_ppm = serializers.IntegerField(help_text="Of it is reserved now, in millionths.")
    cost = PoolCostAnswer(allow_null=True)
    backends = BackendAnswer(many=True)


class StateBody(Strict):
    state = OneOf(
        choices=FleetState.values,
        help_text="DRAINING: no new calls, those in flight end. DISABLED: nor is it watched.",
    )
    reason = reason_field("The audit log keeps it.")


PoolPageAnswer = page_of(PoolAnswer, "PoolPageAnswer")
PoolCostPageAnswer = page_of(PoolCostAnswer, "PoolCostPageAnswer")
BackendPageAnswer = page_of(BackendAnswer, "BackendPageAnswer")
DeploymentPageAnswer = page_of(DeploymentAnswer, "DeploymentPageAnswer")
CapacityPageAnswer = page_of(CapacityAnswer, "CapacityPageAnswer")


@contextmanager
def entry_is_said() -> Iterator[None]:
    """Errors: Problem 400 that names the field of the body."""
    try:
        yield
    except CurrencyWithinHour:
        raise
    except InvalidEntry as error:
        name = _FIELDS.get(error.field, error.field)
        detail = f"{error.why[:1].upper()}{error.why[1:]}."
        raise Problem(
            INVALID, f"{name}: {detail}", errors=(FieldError("body", name, "value", detail),)
        ) from None


def checked_currency(currency: str, *, place: str) -> str:
    """Errors: Problem 400 for what is none of the installation's."""
    if currency not in settings.CURRENCIES:
        detail = f"The installation's currencies are {', '.join(settings.CURRENCIES)}."
        raise Problem(INVALID, detail, errors=(FieldError(place, "currency", "currency", detail),))
    return currency


def page_by(
    listing: Listing, rows: Iterable[RowT], *, key: Callable[[RowT], str], shown: Callable[[RowT], Any]
) -> Answer:
    """A page of what fits into memory many times over, in the order of a key that nothing else has."""
    after = str(listing.place[0]) if listing.place else ""
    rest = sorted((row for row in rows if key(row) > after), key=key)
    page = rest[: listing.limit]
    following = listing.cursor(key(page[-1])) if len(rest) > len(page) else None
    return Answer(page_json([shown(row) for row in page], following))


def page_of_history(
    listing: Listing, rows: Sequence[RowT], *, key: Callable[[RowT], str], shown: Callable[[RowT], Any]
) -> Answer:
    """A page of versions, newest first; they are never removed."""
    keys = [key(row) for row in rows]
    start = keys.index(str(listing.place[0])) + 1 if listing.place and listing.place[0] in keys else 0
    page = rows[start : start + listing.limit]
    following = listing.cursor(key(page[-1])) if len(rows) > start + len(page) else None
    return Answer(page_json([shown(row) for row in page], following))


def shown_pool(row: PoolRow) -> Any:
    return PoolAnswer(row, context={"currency": row.cost.currency if row.cost else ""}).data


def shown_cost(row: CostRow) -> Any:
    return PoolCostAnswer(row, context={"currency": row.currency}).data


def shown_deployment(row: DeploymentRow) -> Any:
    return DeploymentAnswer(row).data


def shown_capacity(row: CapacityRow) -> Any:
    return CapacityAnswer(row).data
