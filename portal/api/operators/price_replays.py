"""The exact what-if of a draft: asked for here, run by the worker, read here."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.http import Http404
from rest_framework import serializers

from models_catalog.pricing import drafts, queries
from models_catalog.pricing import publish as publishing
from portal.api import problems
from portal.api.endpoints import Answer, Call, OperatorEndpoint
from portal.api.fields import Moment, Money, Page, PublicId, page_of
from portal.api.operations import operation
from portal.api.operators.prices import PARTS, TAG
from portal.api.paging import identifier, page_json
from portal.api.problems import CONFLICT, Problem
from portal.pages.access import parse_id
from quotas.models import ReplayState
from quotas.replay import operations
from quotas.replay.queries import Replay, replay_of
from tenants.models import ManagementScope

_EVERY_ROW: Final = 10**9


class ReplaySumsAnswer(serializers.Serializer[Any]):
    """Calls priced again. charged: what they were charged then; today: at the price in force when the replay
    was asked for; draft: with the draft. refused: calls that the draft has no price for."""

    requests = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    image_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    charged = Money(source="charged_nanos")
    today = Money(source="today_nanos")
    draft = Money(source="draft_nanos")
    difference = Money(source="difference_nanos", help_text="draft − today.")
    change_ppm = serializers.IntegerField(allow_null=True, help_text="The difference in millionths of today.")
    refused = serializers.IntegerField()
    changed = serializers.IntegerField(help_text="Calls that cost otherwise with the draft than today.")


class ReplayMarginAnswer(serializers.Serializer[Any]):
    """What the model earns and costs with everybody who uses it in this currency: today, and with the
    draft."""

    cost = Money(source="cost_nanos")
    before = Money(source="before_nanos")
    after = Money(source="after_nanos")
    before_margin = Money(source="before_margin_nanos")
    after_margin = Money(source="after_margin_nanos")
    before_ppm = serializers.IntegerField(allow_null=True, help_text="Margin in millionths of revenue.")
    after_ppm = serializers.IntegerField(allow_null=True)


class ReplayAnswer(serializers.Serializer[Any]):
    """How far a what-if is, and once it is DONE what it found. is_stale: the draft says something else by
    now. margin is null when the cost is not known."""

    id = PublicId(kind="replay")
    price = PublicId(kind="price", source="version_id")
    currency = serializers.CharField()
    state = serializers.ChoiceField(choices=ReplayState.choices)
    is_stale = serializers.BooleanField()
    from_at = Moment()
    to_at = Moment()
    days = serializers.IntegerField()
    days_done = serializers.IntegerField()
    created_at = Moment()
    finished_at = Moment(allow_null=True)
    error = serializers.CharField(allow_blank=True)
    total = ReplaySumsAnswer()
    margin = ReplayMarginAnswer(allow_null=True)
    tenants = serializers.IntegerField(help_text="Organizations with calls in the period.")
    dearer = serializers.IntegerField()
    cheaper = serializers.IntegerField()
    unchanged = serializers.IntegerField()


class ReplayEffectAnswer(serializers.Serializer[Any]):
    """What the draft would have meant for one organization."""

    organization = PublicId(kind="organization", source="tenant_id")
    name = serializers.CharField()
    sums = ReplaySumsAnswer()
    share_ppm = serializers.IntegerField(help_text="Of what all pay with the draft, in millionths.")


ReplayEffectPageAnswer = page_of(ReplayEffectAnswer, "ReplayEffectPageAnswer")


class PriceReplayEndpoint(OperatorEndpoint):
    @operation(
        id="getReplay",
        summary="Read a what-if",
        tag=TAG,
        action="price.read",
        scope=ManagementScope.PRICES_READ,
        parts=PARTS,
        answer=ReplayAnswer,
    )
    def get(self, call: Call, price: str) -> Answer:
        """The newest what-if of a version: how far it is, or what it found."""
        replay = _replay(parse_id("price", price), limit=0)
        return Answer(_shown(replay))

    @operation(
        id="requestReplay",
        summary="Ask for a what-if",
        tag=TAG,
        action="price.replay",
        scope=ManagementScope.PRICES_WRITE,
        parts=PARTS,
        answer=ReplayAnswer,
        status=201,
        raises={
            drafts.DraftNotFound: problems.NOT_FOUND,
            publishing.IncompleteDraft: problems.REFUSED,
        },
    )
    def post(self, call: Call, price: str) -> Answer:
        """Every call of the last 30 days is priced again with the draft, by the function that charges. It
        takes a while: read the what-if until its state is DONE. While one of the same content is under way,
        asking again gives that one."""
        version_id = parse_id("price", price)
        operations.request_replay(version_id=version_id, actor=call.actor, now=call.now)
        return Answer(_shown(_replay(version_id, limit=0)), status=201)


class PriceReplayEffects(OperatorEndpoint):
    @operation(
        id="listReplayEffects",
        summary="List whom a what-if affects",
        tag=TAG,
        action="price.read",
        scope=ManagementScope.PRICES_READ,
        parts=PARTS,
        parameters=Page,
        answer=ReplayEffectPageAnswer,
        problems_of=(CONFLICT,),
    )
    def get(self, call: Call, price: str) -> Answer:
        """Organizations of the newest what-if once it is done: who would pay most more first."""
        listing = call.listing
        replay = _replay(parse_id("price", price), limit=_EVERY_ROW)
        start = 0
        if listing.place is not None:
            first, place = listing.place
            if identifier(first) != replay.id:
                raise Problem(CONFLICT, "There is a newer what-if by now; begin with its first page.")
            start = int(place)
        shown = replay.rows[start : start + listing.limit]
        goes_on = len(replay.rows) > start + len(shown)
        following = listing.cursor(replay.id, start + len(shown)) if goes_on else None
        context = {"currency": replay.currency}
        return Answer(page_json([ReplayEffectAnswer(row, context=context).data for row in shown], following))


def _replay(version_id: UUID, *, limit: int) -> Replay:
    """Raises Http404 without one."""
    found = None
    if queries.find_version(version_id=version_id) is not None:
        found = replay_of(version_id=version_id, limit=limit)
    if found is None:
        raise Http404
    return found


def _shown(replay: Replay) -> Any:
    return ReplayAnswer(replay, context={"currency": replay.currency}).data
