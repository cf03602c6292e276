"""The metrics of this process, in one registry."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

NAMESPACE: Final = "sluice"
REGISTRY: Final = CollectorRegistry()
"""Holds the process's own figures (`process_*`) and everything made by the functions below (`sluice_*`)."""

DURATION_BUCKETS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)

ProcessCollector(registry=REGISTRY)


def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
    """A counter `sluice_<name>_total`. Label values must come from small fixed sets, never from clients."""
    return Counter(name, doc, labels, namespace=NAMESPACE, registry=REGISTRY)


def gauge(name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge `sluice_<name>`."""
    return Gauge(name, doc, labels, namespace=NAMESPACE, registry=REGISTRY)


def histogram(
    name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = DURATION_BUCKETS_S
) -> Histogram:
    """A histogram `sluice_<name>`; the default buckets suit seconds, from a millisecond to five minutes."""
    return Histogram(name, doc, labels, namespace=NAMESPACE, registry=REGISTRY, buckets=buckets)


def render() -> tuple[bytes, str]:
    """The body and the content type of a scrape."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
