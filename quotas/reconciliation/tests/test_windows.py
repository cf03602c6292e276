"""Control windows over made-up counters and calls: what is found, and what never is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.models import ControlWindow, CounterSample, FeedFinish, FeedRecord, FeedVerdict, WindowState
from quotas.reconciliation.operations import thin_counter_samples
from quotas.reconciliation.tests.window_side import Call, Scene, busy_calls, id_at, rolled_back
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant, silence_feeds

pytestmark = pytest.mark.usefixtures("database", "short_windows")
WINDOW_S, SAMPLE_S = 60, 15


@pytest.fixture(scope="module")
def parties(database: None) -> tuple[TenantFixture, ModelFixture]:
    silence_feeds()
    model, tenant = make_model(), make_tenant()
    enable(tenant, model)
    return tenant, model


@pytest.fixture(scope="module")
def short_windows() -> Iterator[None]:
    before = dict(settings.TUNING)
    settings.TUNING.update(SLUICE_WINDOW_S=WINDOW_S)
    yield
    settings.TUNING.update(before)


@pytest.fixture
def scene(parties: tuple[TenantFixture, ModelFixture]) -> Iterator[Scene]:
    with rolled_back():
        yield new_scene(parties)


def new_scene(parties: tuple[TenantFixture, ModelFixture]) -> Scene:
    start = utc_now() - timedelta(minutes=45)
    return Scene(*parties, start=start - timedelta(seconds=start.timestamp() % WINDOW_S))


def play(scene: Scene, until_s: int, *, says_running: bool = True) -> None:
    scene.write_calls(until_s=until_s + 30)
    for at_s in range(0, until_s + 1, SAMPLE_S):
        scene.sample(at_s, says_running=says_running)


def suspense(scene: Scene) -> tuple[int, int]:
    windows = scene.windows()
    return (
        sum(window.suspense_prompt_tokens for window in windows),
        sum(window.suspense_completion_tokens for window in windows),
    )


def test_a_window_at_rest_is_exact(scene: Scene) -> None:
    scene.calls = [Call(20, 25, 100, 40), Call(30, 31, 50, 7), Call(70, 80, 11, 5)]
    play(scene, 180)
    report = scene.reconcile(400)
    first, second, *_, last = scene.windows()
    assert (first.counter_prompt_tokens, first.matched_prompt_tokens) == (150, 150)
    assert (first.counter_completion_tokens, first.matched_completion_tokens) == (47, 47)
    assert (first.attempts, first.matched_attempts, first.causes) == (2, 2, [])
    assert (second.counter_prompt_tokens, second.matched_completion_tokens) == (11, 5)
    assert last.counter_prompt_tokens == 0
    assert {window.state for window in scene.windows()} == {WindowState.CLOSED}
    assert (report.computed, report.closed, report.suspense_tokens) == (4, 4, 0)
    assert scene.items() == []


def test_traffic_past_the_gateway_is_found_and_comes_up_once(scene: Scene) -> None:
    scene.calls = [Call(20, 25, 100, 40), Call(30, 32, 11, 23, is_ours=False), Call(70, 80, 11, 5)]
    play(scene, 180)
    scene.reconcile(75)
    assert scene.windows()[0].state == WindowState.PROVISIONAL
    assert suspense(scene) == (11, 23)
    assert scene.items() == []
    scene.reconcile(400)
    (item,) = scene.items()
    assert (item.prompt_tokens, item.completion_tokens) == (11, 23)
    assert item.window_id == scene.windows()[0].id
    before = [(window.id, window.computed_at) for window in scene.windows()]
    assert scene.reconcile(500).computed == 0
    assert [(window.id, window.computed_at) for window in scene.windows()] == before
    assert len(scene.items()) == 1


def test_a_closed_day_costs_nothing_to_look_at_again(scene: Scene) -> None:
    """Neither calls nor records nor windows are read of what is closed, however much it is."""
    scene.calls = list(busy_calls(random.Random(1), slots=2, until_s=500, leaving=0.1, cap=scene.cap))
    play(scene, 600)
    assert scene.reconcile(900).closed == 11
    with CaptureQueriesContext(connections["dataplane"]) as asked:
        assert scene.reconcile(1000).computed == 0
    statements = " ".join(query["sql"] for query in asked.captured_queries)
    assert "quotas_attempt" not in statements
    assert "quotas_inferencerequest" not in statements
    assert len(asked) <= 8
    # One more sample is one more window, and what is read begins an hour and a call before it.
    scene.sample(615)
    assert scene.reconcile(1100).computed == 1


def test_a_closed_window_never_changes(scene: Scene) -> None:
    scene.calls = [Call(20, 25, 100, 40)]
    play(scene, 60)
    scene.reconcile(300)
    window = scene.windows()[0]
    assert window.state == WindowState.CLOSED
    for change in (
        "UPDATE quotas_controlwindow SET attempts = 9 WHERE id = %s",
        "UPDATE quotas_controlwindow SET state = 'PROVISIONAL' WHERE id = %s",
    ):
        with (
            pytest.raises(IntegrityError),
            transaction.atomic(using="dataplane"),
            connections["dataplane"].cursor() as cursor,
        ):
            cursor.execute(change, [window.id])


def test_a_call_that_was_given_up_and_settled_late_counts_once(scene: Scene) -> None:
    """Its window is closed when the gateway speaks after all: no later one takes it again."""
    scene.calls = [Call(20, 25, 100, 40)]
    play(scene, 120)
    with connections["dataplane"].cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_attempt SET outcome = 'LOST', ended_at = %s, prompt_tokens = NULL,"
            " completion_tokens = NULL WHERE deployment_id = %s RETURNING request_id",
            [scene.at(40), scene.model.deployment_id],
        )
        request_id = cursor.fetchone()[0]
        cursor.execute(
            "INSERT INTO quotas_hold (request_id, tenant_id, currency, amount_nanos, state, lease_until,"
            " checkpoint_prompt_tokens, checkpoint_cached_tokens, checkpoint_completion_tokens,"
            " checkpoint_reasoning_tokens, resolved_at, resolved_by)"
            " VALUES (%s, %s, 'USD', 0, 'VOIDED', %s, 0, 0, 0, 0, %s, 'SWEEPER')",
            [request_id, scene.tenant.id, scene.at(35), scene.at(40)],
        )
    scene.reconcile(130)
    assert scene.windows()[0].state == WindowState.CLOSED
    assert "LOST" in [cause["kind"] for cause in scene.windows()[0].causes]
    with connections["dataplane"].cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_attempt SET outcome = 'COMPLETED', ended_at = %s, prompt_tokens = 100,"
            " completion_tokens = 40 WHERE request_id = %s",
            [scene.at(150), request_id],
        )
    for at_s in range(135, 241, SAMPLE_S):
        scene.sample(at_s)
    scene.reconcile(500)
    assert {window.state for window in scene.windows()} == {WindowState.CLOSED}
    assert suspense(scene) == (0, 0)
    assert sum(window.attempts for window in scene.windows()) == 1


def test_records_that_come_too_late_are_not_in_suspense_beside_the_counter(scene: Scene) -> None:
    scene.calls = [Call(20, 25, 100, 40), Call(30, 32, 11, 23, is_ours=False)]
    play(scene, 120)
    scene.reconcile(400)
    (item,) = scene.items()
    for part, state in ((0, "OPEN"), (1, "EXPLAINED")):
        with role_scope("dataplane"):
            FeedRecord.objects.create(
                subject_id=id_at(scene.at(32)),
                content_id=uuid7(),
                backend_id=scene.model.backend_id,
                feed_id=uuid7(),
                part=part,
                wire_id="chatcmpl-elsewhere",
                prompt_tokens=10 if part == 0 else 1,
                completion_tokens=20 if part == 0 else 3,
                finish=FeedFinish.STOP,
                event_at=scene.at(32),
                received_at=scene.at(450),
                verdict=FeedVerdict.FOREIGN,
                is_late=True,
            )
        scene.reconcile(500)
        (found,) = scene.items()
        assert (found.id, found.state) == (item.id, state)


def test_samples_are_kept_until_their_window_is_closed(scene: Scene) -> None:
    scene.start -= timedelta(days=3)
    for at_s in range(0, 600, SAMPLE_S):
        scene.sample(at_s)
    with role_scope("dataplane"):
        row = ControlWindow.objects.create(
            backend_id=scene.model.backend_id,
            incarnation=1,
            from_at=scene.at(60.05),
            to_at=scene.at(300.05),
            state=WindowState.PROVISIONAL,
            computed_at=scene.at(700),
            **{
                f"{amount}_{kind}_tokens": 0
                for amount in ("counter", "matched", "explained", "suspense")
                for kind in ("prompt", "completion")
            },
        )
        thin_counter_samples()
        samples = CounterSample.objects.filter(backend_id=scene.model.backend_id)
        assert samples.filter(sampled_at__range=(row.from_at, row.to_at)).count() == 17
        assert samples.count() <= 17 + 3
        ControlWindow.objects.filter(id=row.id).update(state=WindowState.CLOSED)
        thin_counter_samples()
        assert samples.count() <= 3


@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 6),
    leaving=st.sampled_from([0.0, 0.0, 0.2]),
    counts_at_end=st.booleans(),
    says_running=st.booleans(),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_ordinary_calls_are_never_in_suspense(
    parties: tuple[TenantFixture, ModelFixture],
    seed: int,
    slots: int,
    leaving: float,
    counts_at_end: bool,
    says_running: bool,
) -> None:
    """However busy the backend is, and however often it is looked at meanwhile."""
    dice = random.Random(seed)
    with rolled_back():
        scene = new_scene(parties)
        scene.counts_at_end, scene.lag_s = counts_at_end, dice.uniform(0, 4) if counts_at_end else 0.0
        scene.calls = list(busy_calls(dice, slots=slots, until_s=300, leaving=leaving, cap=scene.cap))
        play(scene, 420, says_running=says_running)
        for at_s in sorted(dice.sample(range(90, 420), 3)):
            scene.reconcile(at_s)
            assert suspense(scene) == (0, 0)
        scene.reconcile(700)
        assert suspense(scene) == (0, 0)
        # From rest to rest nothing is left over but what went on after clients had left.
        windows = scene.windows()
        counted, metered = (
            scene.counted(400),
            [
                (call.prompt, call.completion if call.left_s is None else call.delivered)
                for call in scene.calls
            ],
        )
        assert sum(window.counter_prompt_tokens for window in windows) == counted[0] - scene.counted(0)[0]
        assert sum(window.attempts for window in windows) == len(metered)


@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 4),
    counts_at_end=st.booleans(),
    tokens=st.integers(1, 3000),
    at_s=st.integers(20, 200),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_what_is_in_suspense_was_never_ours_and_all_of_it_is_found(
    parties: tuple[TenantFixture, ModelFixture],
    seed: int,
    slots: int,
    counts_at_end: bool,
    tokens: int,
    at_s: int,
) -> None:
    dice = random.Random(seed)
    with rolled_back():
        scene = new_scene(parties)
        scene.counts_at_end = counts_at_end
        scene.calls = list(busy_calls(dice, slots=slots, until_s=260, leaving=0.0, cap=scene.cap))
        scene.calls.append(Call(at_s, at_s + 5, tokens, tokens, is_ours=False))
        play(scene, 420)
        for moment_s in sorted(dice.sample(range(90, 420), 2)):
            scene.reconcile(moment_s)
            assert all(0 <= found <= tokens for found in suspense(scene))
        scene.reconcile(700)
        assert suspense(scene) == (tokens, tokens)
