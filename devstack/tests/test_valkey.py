"""The embedded Valkey: password, append-only file, restart."""

from __future__ import annotations

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.datadir import DataDir
from devstack.valkey import Valkey


@pytest.fixture
def valkey(tmp_path):
    folder = DataDir(tmp_path / "data with a space")
    folder.create()
    service = Valkey(folder, port_seed=7)
    service.start()
    yield service
    service.stop()


def test_password_is_needed(valkey):
    once = Retry(NoBackoff(), retries=0)
    stranger = redis.Redis(host="127.0.0.1", port=valkey.port, retry=once)
    with stranger, pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()


def test_password_is_not_on_the_command_line(valkey):
    password = valkey.url.split(":")[2].split("@")[0]
    assert password not in " ".join(psutil.Process(valkey.child.pid).cmdline())


def test_writes_survive_a_stop_and_url_stays_the_same(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.set("kept", "yes")
    url = valkey.url
    valkey.stop()
    valkey.start()
    assert valkey.url == url
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"yes"


def test_title_names_the_version(valkey):
    assert valkey.title.startswith("Valkey 9.")
