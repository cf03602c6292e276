"""What an inference process needs to know; made from the settings by the process's entry point."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg.conninfo import make_conninfo

from portal.kit.secrets import SecretStore


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """Times in seconds, sizes in bytes."""

    conninfo: str = field(repr=False)
    secrets: SecretStore = field(repr=False)
    valkey_url: str = field(repr=False)
    pool_size: int
    lease_s: int
    checkpoint_s: int
    drain_s: int
    admission_deadline_s: float
    connect_timeout_s: int
    first_byte_timeout_s: int
    idle_timeout_s: int
    call_timeout_s: int
    max_calls: int
    rate_limit_rpm: int
    health_s: int = 0
    affinity_percent: int = 150
    max_answer_bytes: int = 64 * 2**20
    max_event_bytes: int = 4 * 2**20
    max_attempts: int = 3


def inference_config(
    *, database: Mapping[str, Any], secrets: SecretStore, valkey_url: str, tuning: Mapping[str, int]
) -> InferenceConfig:
    """From a Django DATABASES entry and the validated tunables."""
    # Django's pool serves pages; calls have a pool of their own.
    options = {name: value for name, value in database["OPTIONS"].items() if name != "pool"}
    conninfo = make_conninfo(
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
        host=database["HOST"],
        port=database["PORT"],
        connect_timeout=2,
        keepalives_idle=10,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
        **options,
    )
    return InferenceConfig(
        conninfo=conninfo,
        secrets=secrets,
        valkey_url=valkey_url,
        pool_size=tuning["SLUICE_GATEWAY_POOL"],
        lease_s=tuning["SLUICE_LEASE_S"],
        checkpoint_s=tuning["SLUICE_CHECKPOINT_S"],
        drain_s=tuning["SLUICE_DRAIN_S"],
        # An answer that comes after half a lease would begin a call that has no time left.
        admission_deadline_s=min(tuning["SLUICE_ADMISSION_DEADLINE_S"], tuning["SLUICE_LEASE_S"] / 2),
        connect_timeout_s=tuning["SLUICE_CONNECT_TIMEOUT_S"],
        first_byte_timeout_s=tuning["SLUICE_FIRST_BYTE_TIMEOUT_S"],
        idle_timeout_s=tuning["SLUICE_IDLE_TIMEOUT_S"],
        call_timeout_s=tuning["SLUICE_CALL_TIMEOUT_S"],
        max_calls=tuning["SLUICE_MAX_CALLS"],
        rate_limit_rpm=tuning["SLUICE_RATE_LIMIT_RPM"],
        health_s=tuning["SLUICE_HEALTH_S"],
        affinity_percent=tuning["SLUICE_AFFINITY_PERCENT"],
    )
