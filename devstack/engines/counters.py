"""Prometheus counters, named and moving as each engine's do.

llama.cpp counts the prompt, without cached tokens, when it has been computed, and generated
tokens when the slot is released. vLLM counts at every step, aborted calls included, but completed
requests only when they complete. SGLang counts when a call ends, aborts included, and moves
`realtime_tokens_total` at every step; its series appear when first used.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from devstack.engines.call import Call

Header = tuple[bytes, bytes]
_TEXT = b"text/plain; version=0.0.4"


class EngineCounters:
    """What a flavour without metrics does: count what runs, show nothing. `running` includes `waiting`."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        # What the engine shows as its start; None where it shows none.
        self.started: float | None = None

    def begin_anew(self, fresh: EngineCounters, *, as_new_process: bool) -> None:
        """Takes over the numbers of counters that were just made. What runs goes on to be counted here; as
        the same process, the start that is shown stays."""
        kept: dict[str, float | None] = {"running": self.running, "waiting": self.waiting}
        if not as_new_process:
            kept["started"] = self.started
        self.__dict__.update(fresh.__dict__ | kept)

    def admitted(self, call: Call) -> None:
        """A validated call begins."""
        self.running += 1

    def queues(self, by: int) -> None:
        """So many more calls wait for a slot."""
        self.waiting += by

    def prefilled(self, call: Call) -> None:
        """The prompt of a call has been computed."""

    def decoded(self, call: Call, steps: int) -> None:
        """Every choice of the call got `steps` more tokens."""

    def released(self, call: Call) -> None:
        """The call is over; `call.aborted` says whether it was cut short. Called once."""
        self.running -= 1

    def render(self) -> tuple[bytes, list[Header]] | None:
        """Body and headers of a scrape, None where the engine offers none."""
        return None


class LlamacppCounters(EngineCounters):
    """No labels. The incarnation is a header: microseconds since boot, not Unix time."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic_ns() // 1000
        self._prompt = self._cached = self._predicted = self._decodes = self._longest = 0
        self._prompt_s = self._predicted_s = 0.0

    def prefilled(self, call: Call) -> None:
        self._prompt += call.prompt_tokens - call.cached_tokens
        self._cached += call.cached_tokens
        self._prompt_s += time.perf_counter() - call.started_s

    def decoded(self, call: Call, steps: int) -> None:
        self._decodes += steps
        self._longest = max(self._longest, call.prompt_tokens + call.steps)

    def released(self, call: Call) -> None:
        super().released(call)
        self._predicted += call.generated_tokens
        if call.prefilled_s is not None:
            self._predicted_s += time.perf_counter() - call.prefilled_s

    def render(self) -> tuple[bytes, list[Header]]:
        rows = [
            (
                "prompt_tokens_total",
                "counter",
                "Number of prompt tokens processed, excluding cached tokens",
                self._prompt,
            ),
            (
                "prompt_tokens_cached_total",
                "counter",
                "Number of prompt tokens reused from the cache",
                self._cached,
            ),
            ("prompt_seconds_total", "counter", "Total time spent processing prompts", self._prompt_s),
            ("tokens_predicted_total", "counter", "Number of generation tokens processed", self._predicted),
            (
                "tokens_predicted_seconds_total",
                "counter",
                "Total time spent generating tokens",
                self._predicted_s,
            ),
            ("n_decode_total", "counter", "Total number of llama_decode() calls", self._decodes),
            (
                "n_tokens_max",
                "counter",
                "Largest observed sequence length (prompt + generation)",
                self._longest,
            ),
            ("requests_processing", "gauge", "Number of requests processing", self.running - self.waiting),
            ("requests_deferred", "gauge", "Number of requests deferred", self.waiting),
        ]
        lines = [
            f"# HELP llamacpp:{name} {text}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value:.10g}\n"
            for name, kind, text, value in rows
        ]
        started = str(self.started).encode()
        return "".join(lines).encode(), [(b"Process-Start-Time-Unix", started), (b"Content-Type", _TEXT)]


class VllmCounters(EngineCounters):
    """Labels engine and model_name; all series exist from the start; `process_start_time_seconds`."""

    REASONS = ("stop", "length", "abort", "error", "repetition")

    def __init__(self, model: str) -> None:
        super().__init__()
        self._labels = f'engine="0",model_name="{model}"'
        self.started = time.time()
        self._prompt = self._cached = self._generated = 0
        self._finished = dict.fromkeys(self.REASONS, 0)
        self._finished_prompt = self._finished_generated = 0

    def prefilled(self, call: Call) -> None:
        self._prompt += call.prompt_tokens * call.request.n
        self._cached += call.cached_tokens * call.request.n

    def decoded(self, call: Call, steps: int) -> None:
        self._generated += steps * call.request.sequences

    def released(self, call: Call) -> None:
        super().released(call)
        if not call.aborted:
            self._finished[self._reason(call)] += call.request.sequences
            self._finished_prompt += call.prompt_tokens * call.request.n
            self._finished_generated += call.generated_tokens

    @staticmethod
    def _reason(call: Call) -> str:
        # A tool's call is an end as any other.
        return "length" if call.finish_reason == "length" else "stop"

    def render(self) -> tuple[bytes, list[Header]]:
        finished = sum(self._finished.values())
        families = [
            _family("vllm:num_requests_running", "gauge", [(self._labels, self.running - self.waiting)]),
            _family("vllm:num_requests_waiting", "gauge", [(self._labels, self.waiting)]),
            _family("vllm:prompt_tokens_total", "counter", [(self._labels, self._prompt)]),
            _family(
                "vllm:prompt_tokens_by_source_total",
                "counter",
                [
                    (f'{self._labels},source="local_compute"', self._prompt - self._cached),
                    (f'{self._labels},source="local_cache_hit"', self._cached),
                    (f'{self._labels},source="external_kv_transfer"', 0),
                ],
            ),
            _family("vllm:prompt_tokens_cached_total", "counter", [(self._labels, self._cached)]),
            _family("vllm:generation_tokens_total", "counter", [(self._labels, self._generated)]),
            _family(
                "vllm:request_success_total",
                "counter",
                [
                    (f'engine="0",finished_reason="{reason}",{self._labels.partition(",")[2]}', count)
                    for reason, count in self._finished.items()
                ],
            ),
            _histogram("vllm:request_prompt_tokens", self._labels, finished, self._finished_prompt),
            _histogram("vllm:request_generation_tokens", self._labels, finished, self._finished_generated),
            _family("process_start_time_seconds", "gauge", [("", self.started or 0.0)]),
        ]
        return "".join(families).encode(), [(b"content-type", _TEXT + b"; charset=utf-8")]


class SglangCounters(EngineCounters):
    """Labels engine_type, is_streaming and model_name; nothing tells one incarnation from the next."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = f'engine_type="unified",model_name="{model}"'
        self._ended: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._realtime: dict[str, int] = defaultdict(int)

    def prefilled(self, call: Call) -> None:
        self._realtime["prefill_compute"] += call.prompt_tokens - call.cached_tokens
        self._realtime["prefill_cache"] += call.cached_tokens

    def decoded(self, call: Call, steps: int) -> None:
        # The first token of each choice comes out of the prefill and is not counted as decoded.
        first = call.steps == steps
        self._realtime["decode"] += (steps - first) * call.request.sequences

    def released(self, call: Call) -> None:
        super().released(call)
        if call.aborted:
            self._ended["num_aborted_requests_total"][self._model] += 1
        if call.prefilled_s is None:
            return
        # With n > 1 the engine runs the prompt once more than there are choices, to warm its cache.
        runs = call.request.n if call.request.n == 1 else call.request.n + 1
        streaming = str(call.request.stream).lower()
        labels = f'engine_type="unified",is_streaming="{streaming}",{self._model.partition(",")[2]}'
        self._ended["prompt_tokens_total"][labels] += call.prompt_tokens * runs
        self._ended["generation_tokens_total"][labels] += call.generated_tokens
        self._ended["num_requests_total"][labels] += runs * len(call.request.prompt.counts)
        if call.cached_tokens:
            source = f'cache_source="device",{self._model}'
            self._ended["cached_tokens_total"][source] += call.cached_tokens * runs

    def render(self) -> tuple[bytes, list[Header]]:
        ranks = f'{self._model},moe_ep_rank="0",pp_rank="0",tp_rank="0"'
        families = [
            _family("sglang:num_running_reqs", "gauge", [(ranks, self.running - self.waiting)]),
            _family("sglang:num_queue_reqs", "gauge", [(ranks, self.waiting)]),
        ]
        realtime = [(f'mode="{mode}",{ranks}', count) for mode, count in self._realtime.items()]
        if realtime:
            families.append(_family("sglang:realtime_tokens_total", "counter", realtime))
        for name, series in self._ended.items():
            families.append(_family(f"sglang:{name}", "counter", series.items()))
        return "".join(families).encode(), [(b"content-type", _TEXT + b"; charset=utf-8")]


def _family(name: str, kind: str, series: Iterable[tuple[str, float]]) -> str:
    rows = "".join(
        f"{name}{{{labels}}} {float(value)!r}\n" if labels else f"{name} {float(value)!r}\n"
        for labels, value in series
    )
    return f"# HELP {name} {name} of a simulated engine.\n# TYPE {name} {kind}\n{rows}"


def _histogram(name: str, labels: str, count: int, total: int) -> str:
    return (
        f"# HELP {name} {name} of a simulated engine.\n# TYPE {name} histogram\n"
        f'{name}_bucket{{{labels},le="+Inf"}} {float(count)!r}\n'
        f"{name}_count{{{labels}}} {float(count)!r}\n{name}_sum{{{labels}}} {float(total)!r}\n"
    )
