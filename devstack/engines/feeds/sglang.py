"""SGLang's request log (`[time] {json}`, naive local time) and its metrics export, one JSON object a line.

As with --log-requests --log-requests-level 0 --log-requests-format json --log-requests-target DIR,
--export-metrics-to-file and SGLANG_LOG_REQUEST_HEADERS=x-request-id. Neither says anything about a call whose
client left, but that the log tells of its beginning.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from devstack.engines.feeds.lines import LineFormat, quoted
from devstack.engines.feeds.told import Told

_MONOTONIC_WRAP_S = 1_000_000.0
_EOS_TOKEN = 2

# The order is the engine's. What depends on the call is named by a marker.
_OBJECT: dict[str, Any] = {
    "rid": "@RID@",
    "session_id": None,
    "mm_hashes": None,
    "mm_content_hashes": None,
    "use_audio_in_video": False,
    "video_config": None,
    "watermark": None,
    "return_logprob": False,
    "logprob_start_len": -1,
    "top_logprobs_num": 0,
    "token_ids_logprob": None,
    "return_sampling_mask": False,
    "sampling_logprobs_mode": None,
    "return_text_in_logprobs": True,
    "return_flat_raw_top_logprobs": False,
    "return_flat_raw_output_top_logprobs": False,
    "return_flat_raw_top_logprobs_b64": False,
    "stream": "@STREAM@",
    "log_metrics": True,
    "return_hidden_states": False,
    "return_routed_experts": False,
    "routed_experts_start_len": 0,
    "return_indexer_topk": False,
    "modalities": [],
    "session_params": None,
    "lora_id": None,
    "custom_logit_processor": None,
    "positional_embed_overrides": None,
    "bootstrap_host": None,
    "bootstrap_port": None,
    "bootstrap_room": None,
    "bootstrap_pair_key": None,
    "decode_tp_size": None,
    "routed_dp_rank": None,
    "data_parallel_rank": None,
    "disagg_prefill_dp_rank": None,
    "routing_key": None,
    "conversation_id": None,
    "http_worker_ipc": None,
    "background": False,
    "require_reasoning": False,
    "max_thinking_tokens": None,
    "priority": None,
    "extra_key": None,
    "no_logs": False,
    "custom_labels": None,
    "return_bytes": False,
    "return_entropy": False,
    "return_prompt_token_ids": False,
    "external_trace_header": None,
    "received_time": "@RECEIVED@",
    "need_wait_for_mm_inputs": None,
    "num_items_assigned": None,
    "encoder_urls": None,
    "max_dynamic_patch": None,
    "min_dynamic_patch": None,
    "image_max_dynamic_patch": None,
    "video_max_dynamic_patch": None,
    "images_config": None,
    "mm_processor_kwargs": None,
    "multi_item_delimiter_indices": None,
    "token_indices_to_pool": None,
    "cache_salt": None,
    "kv_hints": None,
}
# Of several prompts or choices these hold a value for each.
_PER_PROMPT = (
    *("mm_hashes", "mm_content_hashes", "watermark", "return_logprob", "logprob_start_len"),
    *("top_logprobs_num", "token_ids_logprob", "return_sampling_mask", "sampling_logprobs_mode"),
    *("return_hidden_states", "custom_logit_processor", "bootstrap_host", "bootstrap_port"),
    *("bootstrap_room", "bootstrap_pair_key", "decode_tp_size"),
)
# The export leaves out what is null.
_PARAMETERS = {key: value for key, value in _OBJECT.items() if value is not None}


def _pieces(value: object, *, inside_text: bool = False) -> tuple[str, str, str, str]:
    """What stands before, between and after rid, stream and received_time. Text inside text has its quotes
    escaped once more."""
    text = json.dumps(value)
    if inside_text:
        text = json.dumps(text)
    pieces: list[str] = []
    for marker in ("@RID@", "@STREAM@", "@RECEIVED@"):
        found = f'\\"{marker}\\"' if inside_text else f'"{marker}"'
        piece, _, text = text.partition(found)
        pieces.append(piece)
    return pieces[0], pieces[1], pieces[2], text


# Joining pieces is several times faster than filling in a template of that length.
_CHAT = _pieces(_OBJECT)
_CHAT_PARAMETERS = _pieces(_PARAMETERS, inside_text=True)
# Plain texts have no modalities.
_TEXTS = _pieces(_OBJECT | {"modalities": None})
_TEXTS_PARAMETERS = _pieces(
    {key: value for key, value in _PARAMETERS.items() if key != "modalities"}, inside_text=True
)
_OF_TEXTS = "/v1/completions"


class SglangLog(LineFormat):
    """`DIR/<hostname>_<rank>.log`; when the hour is over the file gets the hour's name as its ending."""

    name = "sglang_log"

    def __init__(self, *, skew_s: float = 0.0, hostname: str | None = None, rank: int = 0) -> None:
        super().__init__(skew_s=skew_s)
        self._file_name = f"{hostname or socket.gethostname()}_{rank}.log"
        self._second = -1
        self._beginning = ""

    def file_name(self, unix: float) -> str:
        return self._file_name

    def aside_name(self, unix: float) -> str:
        return f"{self._file_name}.{time.strftime('%Y-%m-%d_%H', self.local_time(unix))}"

    def line(self, told: Told) -> bytes:
        rid = quoted(told.wire_id)
        pieces = _TEXTS if told.path == _OF_TEXTS else _CHAT
        return (
            f'{self._stamp(told.finished_unix)}", "event": "request.finished", "rid": {rid}, "obj": '
            f'{_object(rid, told, pieces)}{_headers(told)}, "out": {{"meta_info": {{'
            f"{meta(rid, told, self.skew_s)}}}}}}}"
        ).encode()

    def opening(self, wire_ids: Sequence[str], told: Told) -> bytes:
        if len(wire_ids) == 1:
            rid, pieces = quoted(wire_ids[0]), _TEXTS if told.path == _OF_TEXTS else _CHAT
        else:
            rid, pieces = json.dumps(list(wire_ids)), _pieces_of_many(len(wire_ids), told)
        return (
            f'{self._stamp(told.received_unix)}", "event": "request.received", "rid": {rid}, "obj": '
            f"{_object(rid, told, pieces)}{_headers(told)}}}"
        ).encode()

    def _stamp(self, unix: float) -> str:
        """The beginning of a line, up to within the text of its timestamp."""
        second, micros = divmod(round((unix + self.skew_s) * 1e6), 1_000_000)
        if second != self._second:
            self._second = second
            # Naive local time is what the engine writes.
            local = datetime.fromtimestamp(second)  # noqa: DTZ006
            self._beginning = f'[{local}] {{"timestamp": "{local.isoformat()}'
        return f"{self._beginning}.{micros:06}"


class SglangExport(LineFormat):
    """`DIR/sglang-request-metrics-YYYYMMDD_HH.log` by the local hour; the parameters are text within JSON."""

    name = "sglang_export"

    def file_name(self, unix: float) -> str:
        return f"sglang-request-metrics-{time.strftime('%Y%m%d_%H', self.local_time(unix))}.log"

    def line(self, told: Told) -> bytes:
        rid = quoted(told.wire_id)
        pieces = _TEXTS_PARAMETERS if told.path == _OF_TEXTS else _CHAT_PARAMETERS
        parameters = _object(quoted(rid)[1:-1], told, pieces)
        return f'{{"request_parameters": {parameters}, {meta(rid, told, self.skew_s)}}}'.encode()


def meta(rid: str, told: Told, skew_s: float) -> str:
    """The members of `meta_info`. `rid` is quoted."""
    received, first, finished = told.received_unix, told.first_token_unix, told.finished_unix
    waited = (first - received) / 8
    completion, cached = told.completion_tokens, told.cached_tokens
    generation = throughput = ""
    if completion is not None:
        # Of embeddings nothing is told that only generation has.
        details = f'{{"device": {cached}, "host": 0}}' if cached else "null"
        generation = (
            f'"reasoning_tokens": {told.reasoning_tokens}, "completion_tokens": {completion}, '
            f'"cached_tokens": {cached}, "weight_versions": [{{"version": "default", "start": 0, "end": '
            f'{completion}}}], "cached_tokens_details": {details}, '
        )
        if completion > 1 and finished > first:
            throughput = f'"decode_throughput": {(completion - 1) / (finished - first):.6f}, '
    ended = f"{finished + skew_s:.6f}"
    return (
        f'"id": {rid}, "finish_reason": {_finish_reason(told)}, "prompt_tokens": {told.prompt_tokens}, '
        '"weight_version": "default", "num_retractions": 0, "storage_prefetch_wait": 0.0, '
        f'"storage_staging_wait": 0.0, "forward_entry_time": {received + waited + skew_s:.6f}, '
        f'"prefill_finished_time": {first + skew_s:.6f}, "queue_time": {waited:.6f}, {generation}'
        f'"dp_rank": null, "e2e_latency": {finished - received:.6f}, '
        f'"request_received_ts": {received + skew_s:.6f}, "first_token_latency": {first - received:.6f}, '
        f'"api_server_dispatch_finish_ts": {received + waited / 2 + skew_s:.6f}, '
        f'"request_finished_ts": {ended}, {throughput}"response_sent_to_client_ts": {ended}'
    )


def _finish_reason(told: Told) -> str:
    if told.finish == "stop":
        return f'{{"type": "stop", "matched": {_EOS_TOKEN}}}'
    if told.finish == "length":
        return f'{{"type": "length", "length": {told.completion_tokens or 0}}}'
    return '{"type": "abort", "message": "Aborted", "status_code": null, "err_type": null}'


def _object(rid: str, told: Told, pieces: tuple[str, str, str, str]) -> str:
    before, to_stream, to_received, after = pieces
    stream = "true" if told.stream else "false"
    received = f"{told.received_unix % _MONOTONIC_WRAP_S:.6f}"
    return f"{before}{rid}{to_stream}{stream}{to_received}{received}{after}"


def _pieces_of_many(count: int, told: Told) -> tuple[str, str, str, str]:
    many = {key: [value] * count if key in _PER_PROMPT else value for key, value in _OBJECT.items()}
    return _pieces(many | {"modalities": None} if told.path == _OF_TEXTS else many)


def _headers(told: Told) -> str:
    return f', "headers": {{"x-request-id": {quoted(told.header_id)}}}' if told.header_id else ""
