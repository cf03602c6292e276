"""Reading the engines' counters: real pages of real engines, simulated ones, and hostile ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.engines.options import Flavour
from devstack.engines.testing import start_engine
from models_catalog.engines import ADAPTERS, CounterReading, UnreadableCounters
from models_catalog.engines.counters import MAX_COUNT

PAGES = Path(__file__).parent / "metrics"
LLAMACPP_HEADERS = {"process-start-time-unix": "6511001081"}

# prompt, cached, completion, finished, running, start mark
EXPECTED = {
    "llamacpp_fresh": CounterReading(0, 0, 0, None, 0, "6511001081", True),
    "llamacpp_while_running": CounterReading(4374, 1992, 1336, None, 1, "6511001081", True),
    "llamacpp_after_all": CounterReading(4374, 1992, 1376, None, 0, "6511001081", True),
    "vllm_fresh": CounterReading(0, 0, 0, 0, 0, "1.7954778655e+09", False),
    "vllm_after_all": CounterReading(3105, 1920, 608, 31, 0, "1.7954778655e+09", False),
    "vllm_after_restart": CounterReading(0, 0, 0, 0, 0, "", False),
    "sglang_fresh": CounterReading(12, 0, 8, 1, 0, "", False),
    "sglang_after_restart": CounterReading(12, 0, 8, 1, 0, "", False),
}


def page(name: str) -> str:
    return (PAGES / f"{name}.prom").read_text()


@pytest.mark.parametrize("name", EXPECTED)
def test_pages_of_real_engines_are_read(name: str) -> None:
    engine = name.partition("_")[0]
    headers = LLAMACPP_HEADERS if engine == "llamacpp" else {}
    reading = ADAPTERS[engine].read_counters(page(name), headers)
    expected = EXPECTED[name]
    if name == "vllm_after_restart":
        # Another process, and it says so.
        assert reading.start_mark not in ("", EXPECTED["vllm_after_all"].start_mark)
        expected = replace(expected, start_mark=reading.start_mark)
    assert reading == expected
    assert ADAPTERS["generic"].read_counters(page(name), headers) == expected


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("engine", ["llamacpp", "vllm", "sglang"])
def test_another_engines_page_is_refused(name: str, engine: str) -> None:
    if name.startswith(engine):
        return
    with pytest.raises(UnreadableCounters):
        ADAPTERS[engine].read_counters(page(name), {})


@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "inf",
        "-inf",
        "+Inf",
        "1e400",
        "-1",
        "0.5",
        "1_000",
        "9007199254740994",
        "9" * 5000,
        "0x10",
        "٣",
    ],
)
@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("llamacpp_after_all", "llamacpp:tokens_predicted_total"),
        ("vllm_after_all", 'vllm:prompt_tokens_total{engine="0",model_name="tiny"}'),
        (
            "sglang_fresh",
            'sglang:prompt_tokens_total{engine_type="unified",is_streaming="false",model_name="tiny"}',
        ),
    ],
)
def test_a_number_that_cannot_be_a_count_refuses_the_page(name: str, series: str, number: str) -> None:
    lines = [
        f"{series} {number}" if line.startswith(f"{series} ") else line for line in page(name).split("\n")
    ]
    assert f"{series} {number}" in lines
    with pytest.raises(UnreadableCounters):
        ADAPTERS[name.partition("_")[0]].read_counters("\n".join(lines), {})


def test_labels_are_added_up_and_may_hold_anything() -> None:
    text = (
        'vllm:prompt_tokens_total{engine="0",model_name="a } 7 \\" b"} 3 1795477602000\n'
        'vllm:prompt_tokens_total{engine="1",model_name="c"} 4e0\n'
        "vllm:generation_tokens_total 5\n"
        "vllm:prompt_tokens_total_of_another 1000\n"
        'vllm:num_requests_running{engine="0"} 1.0\n'
        'vllm:num_requests_waiting{engine="0"} 2.0\n'
    )
    assert ADAPTERS["vllm"].read_counters(text, {}) == CounterReading(7, None, 5, None, 3, "", False)


def test_sums_that_leave_the_exact_range_are_refused() -> None:
    text = (
        f"vllm:generation_tokens_total 1\nvllm:prompt_tokens_total {MAX_COUNT}\nvllm:prompt_tokens_total 1\n"
    )
    with pytest.raises(UnreadableCounters):
        ADAPTERS["vllm"].read_counters(text, {})


def test_an_sglang_page_without_tokens_counts_from_zero() -> None:
    reading = ADAPTERS["sglang"].read_counters("sglang:num_running_reqs 0.0\n", {})
    assert reading == CounterReading(0, 0, 0, 0, 0, "", False)


_NAMES = st.sampled_from(
    [
        "llamacpp:prompt_tokens_total",
        "llamacpp:tokens_predicted_total",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "sglang:generation_tokens_total",
        "process_start_time_seconds",
    ]
)
_LINES = st.builds(
    lambda name, labels, value: f"{name}{labels} {value}",
    _NAMES,
    st.one_of(st.just(""), st.text(max_size=20).map(lambda text: "{" + text + "}")),
    st.one_of(st.text(max_size=12), st.floats().map(repr), st.integers().map(str)),
)


@given(
    st.sampled_from(sorted(ADAPTERS)),
    st.one_of(st.text(), st.lists(st.one_of(_LINES, st.text(max_size=40)), max_size=8).map("\n".join)),
    st.dictionaries(st.just("process-start-time-unix"), st.text(max_size=200)),
)
def test_any_text_is_read_or_refused(engine: str, text: str, headers: dict[str, str]) -> None:
    try:
        reading = ADAPTERS[engine].read_counters(text, headers)
    except UnreadableCounters:
        return
    counts = (
        reading.prompt_tokens,
        reading.completion_tokens,
        reading.cached_tokens,
        reading.requests_finished,
    )
    assert all(0 <= count <= MAX_COUNT for count in counts if count is not None)
    assert len(reading.start_mark) <= 64
    assert reading.start_mark.isascii()


@pytest.mark.timeout(10)
def test_a_line_that_never_ends_costs_no_more_than_its_length() -> None:
    for rest in ('{a="' + "\\" * 2_000_000, "{" * 2_000_000, '{"' * 1_000_000, " " * 2_000_000):
        with pytest.raises(UnreadableCounters):
            ADAPTERS["vllm"].read_counters("vllm:prompt_tokens_total" + rest, {})


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "sglang"])
def test_the_simulators_speak_as_their_engines_do(flavour: Flavour) -> None:
    with start_engine(flavour) as engine:
        _, body = engine._call("GET", "/metrics")
        reading = ADAPTERS[flavour].read_counters(body.decode(), {})
        assert (reading.prompt_tokens, reading.completion_tokens, reading.running) == (0, 0, 0)
