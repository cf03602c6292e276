"""What an engine says that it has served: its Prometheus counters, read strictly.

A page is text from another machine. Only the few series that carry tokens are looked at, each number
must be a whole one that a double holds exactly, and whatever else is wrong refuses the page as a whole:
a counter that was read wrongly would accuse somebody.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# Beyond this a double no longer tells neighbouring whole numbers apart.
MAX_COUNT = 2**53
MAX_MARK = 64

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*+")
_LABELS = re.compile(r'\{(?:[^"}]|"(?:[^"\\]|\\.)*+")*+\}')
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_NUMBER = 64


class UnreadableCounters(ValueError):
    """The page is not this engine's, or holds a number that cannot be one of its counters."""


@dataclass(frozen=True, slots=True)
class CounterNames:
    """How one engine names its series. Values of all labels are added up.

    appear_when_used: an engine whose series exist only once they have moved; an absent one is zero then,
    as long as the page has any series that starts with `prefix`.
    start_header, start_series: what differs from one process to the next, and means nothing else to us.
    """

    prefix: str
    prompt: str
    completion: str
    cached: str
    running: str
    finished: str = ""
    waiting: str = ""
    prompt_excludes_cached: bool = False
    appear_when_used: bool = False
    start_header: str = ""
    start_series: str = ""


@dataclass(frozen=True, slots=True)
class CounterReading:
    """Counters since the engine's start. `prompt_tokens` is as the engine counts, with or without the
    cached ones; cached_tokens, requests_finished and running are None where the engine does not say.

    `running` counts waiting requests too. `start_mark` is opaque: another mark is another process, an
    empty one says nothing.
    """

    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    requests_finished: int | None
    running: int | None
    start_mark: str
    prompt_excludes_cached: bool


def read_counters(text: str, headers: Mapping[str, str], dialects: Sequence[CounterNames]) -> CounterReading:
    """The counters of a page in whichever of the dialects it is written.

    headers: those of the answer, under lower-case names. Errors: UnreadableCounters, whatever the text.
    """
    for names in dialects:
        if any(line.startswith(names.prefix) for line in text.split("\n")):
            return _read(text, headers, names)
    raise UnreadableCounters("the page has no counters of this engine")


def _read(text: str, headers: Mapping[str, str], names: CounterNames) -> CounterReading:
    wanted = {
        name
        for name in (
            names.prompt,
            names.completion,
            names.cached,
            names.running,
            names.finished,
            names.waiting,
        )
        if name
    }
    sums: dict[str, int] = {}
    mark = headers.get(names.start_header, "") if names.start_header else ""
    for name, value in _series(text, wanted | {names.start_series}):
        if name == names.start_series:
            mark = value
            continue
        sums[name] = sums.get(name, 0) + _whole(name, value)
        if sums[name] > MAX_COUNT:
            raise UnreadableCounters(f"{name} is beyond what counters can say")
    if names.appear_when_used:
        for name in (names.prompt, names.completion, names.cached, names.finished):
            sums.setdefault(name, 0)
    for name in (names.prompt, names.completion):
        if name not in sums:
            raise UnreadableCounters(f"{name} is missing")
    running = sums.get(names.running)
    if running is not None:
        running += sums.get(names.waiting, 0)
    return CounterReading(
        prompt_tokens=sums[names.prompt],
        cached_tokens=sums.get(names.cached),
        completion_tokens=sums[names.completion],
        requests_finished=sums.get(names.finished),
        running=running,
        start_mark=re.sub(r"[^ -~]", "", mark)[:MAX_MARK],
        prompt_excludes_cached=names.prompt_excludes_cached,
    )


def _series(text: str, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Name and value, as written, of each series that is wanted. Labels and timestamps are left out."""
    for line in text.split("\n"):
        name = _NAME.match(line)
        if name is None or name[0] not in wanted:
            continue
        rest = line[name.end() :]
        labels = _LABELS.match(rest)
        fields = (rest[labels.end() :] if labels else rest).split()
        if len(fields) not in (1, 2):
            raise UnreadableCounters(f"{name[0]} has no readable value")
        yield name[0], fields[0]


def _whole(name: str, value: str) -> int:
    if len(value) > _MAX_NUMBER or _NUMBER.fullmatch(value) is None:
        raise UnreadableCounters(f"{name} is no number")
    number = float(value)
    if not 0 <= number <= MAX_COUNT or number != int(number):
        raise UnreadableCounters(f"{name} is no whole count")
    return int(number)


LLAMACPP = CounterNames(
    prefix="llamacpp:",
    prompt="llamacpp:prompt_tokens_total",
    # In the server's code, though not in its documentation; builds from before it lack the series.
    cached="llamacpp:prompt_tokens_cached_total",
    completion="llamacpp:tokens_predicted_total",
    running="llamacpp:requests_processing",
    waiting="llamacpp:requests_deferred",
    prompt_excludes_cached=True,
    # Microseconds since the host's boot in spite of its name.
    start_header="process-start-time-unix",
)
VLLM = CounterNames(
    prefix="vllm:",
    prompt="vllm:prompt_tokens_total",
    cached="vllm:prompt_tokens_cached_total",
    completion="vllm:generation_tokens_total",
    finished="vllm:request_success_total",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    # Missing where several API servers share the page; then only falling counters show a restart.
    start_series="process_start_time_seconds",
)
SGLANG = CounterNames(
    prefix="sglang:",
    prompt="sglang:prompt_tokens_total",
    cached="sglang:cached_tokens_total",
    completion="sglang:generation_tokens_total",
    finished="sglang:num_requests_total",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    appear_when_used=True,
)
ALL_DIALECTS = (LLAMACPP, VLLM, SGLANG)
