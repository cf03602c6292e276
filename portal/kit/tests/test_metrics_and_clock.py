import uuid
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from portal.kit import metrics
from portal.kit.clock import monotonic_s, utc_now


def scrape() -> dict[str, float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    families = text_string_to_metric_families(body.decode())
    return {
        sample.name + str(sample.labels): sample.value for family in families for sample in family.samples
    }


def test_metrics_carry_our_name_and_can_be_scraped() -> None:
    # The registry lives as long as the process: names of their own let the test run twice in one.
    suffix = uuid.uuid4().hex
    metrics.counter(f"calls_{suffix}", "Calls.", ["kind"]).labels("chat").inc(3)
    metrics.gauge(f"depth_{suffix}", "Depth.").set(2)
    metrics.histogram(f"wait_{suffix}", "Wait.", buckets=(0.1, 1)).observe(0.5)
    found = scrape()
    assert found[f"sluice_calls_{suffix}_total{{'kind': 'chat'}}"] == 3
    assert found[f"sluice_depth_{suffix}{{}}"] == 2
    assert found[f"sluice_wait_{suffix}_bucket{{'le': '0.1'}}"] == 0
    assert found[f"sluice_wait_{suffix}_bucket{{'le': '1.0'}}"] == 1
    assert found[f"sluice_wait_{suffix}_count{{}}"] == 1
    assert found["process_start_time_seconds{}"] > 1e9


def test_a_name_is_taken_once() -> None:
    name = f"once_{uuid.uuid4().hex}"
    metrics.gauge(name, "Once.")
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.counter(name, "Twice.")


def test_clocks() -> None:
    assert utc_now().utcoffset() == timedelta(0)
    assert monotonic_s() <= monotonic_s()
