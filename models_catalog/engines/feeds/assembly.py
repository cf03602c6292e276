"""An entry put together out of values that nobody has checked yet."""

from datetime import datetime

from models_catalog.engines.feeds.entry import MAX_EVENT_ID, FeedEntry, Finish
from models_catalog.engines.feeds.values import check_parts, count, optional_count
from models_catalog.engines.feeds.wire_ids import check_id, read_wire_id


def assemble(
    *,
    wire_id: object,
    prompt_tokens: object,
    cached_tokens: object,
    completion_tokens: object,
    reasoning_tokens: object,
    finish: Finish,
    finished_at: datetime | None,
    named_by: object = None,
    part: int | None = None,
    event_id: str = "",
) -> FeedEntry:
    """The entry of a record. `named_by` is an id that came along beside the engine's own, such as a header;
    it counts where the engine's is not made of ours. `part` is given where the id does not tell it.

    Raises UnreadableLine.
    """
    name = check_id(wire_id, "wire_id")
    attempt_id, part_in_id = read_wire_id(name)
    if attempt_id is None and isinstance(named_by, str):
        attempt_id, part_in_id = read_wire_id(named_by)
    if event_id:
        check_id(event_id, "event_id", max_length=MAX_EVENT_ID)
    prompt = count(prompt_tokens, "prompt_tokens")
    cached = optional_count(cached_tokens, "cached_tokens")
    completion = count(completion_tokens, "completion_tokens")
    reasoning = optional_count(reasoning_tokens, "reasoning_tokens")
    check_parts(prompt, cached, completion, reasoning)
    return FeedEntry(
        name,
        attempt_id,
        part_in_id if part is None else part,
        prompt,
        cached,
        completion,
        reasoning,
        finish,
        finished_at,
        event_id,
    )
