"""The supervisor with real services and stand-ins for our own processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devstack.datadir import parse_env
from devstack.probe import answers_ok
from devstack.tests.helpers import Instance, eventually, is_gone, port_with_free_neighbour, running_instance


def test_start_says_what_it_does_and_leaves_word(tmp_path):
    with running_instance(tmp_path / "data") as instance:
        values = parse_env((tmp_path / "data" / "instance.env").read_text())
        given = json.loads((tmp_path / "data" / "step.json").read_text())
        assert values["PORTAL_URL"] == f"http://127.0.0.1:{instance.port}"
        assert values["API_BASE"] == f"http://127.0.0.1:{instance.port + 1}/v1"
        assert values["GATEWAY_PORT"] == str(instance.port + 1)
        assert values["SLUICE_ENV"] == "development"
        assert values.items() <= given.items()
        lines = instance.output().splitlines()
        assert "PostgreSQL 18." in lines[0]
        assert "Valkey 9." in lines[1]
        assert "Stand-in for Stripe" in lines[2]
        assert answers_ok(f"{values['STRIPE_API_BASE']}/_standin/health")
        assert f"Ready: {values['PORTAL_URL']}" in lines
        assert {path.stem for path in (tmp_path / "data" / "run").glob("*.pid")} == {
            "postgres",
            "valkey",
            "stripe",
            "gateway",
            "web",
            "worker",
        }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_leaves_no_process_and_is_a_success(tmp_path, number):
    with running_instance(tmp_path / "data") as instance:
        processes = instance.descendants()
        assert len(processes) > 6
        assert instance.stop(number) == 0
        assert all(is_gone(process) for process in processes)
        assert not list((tmp_path / "data" / "run").glob("*.pid"))


def test_same_request_twice_at_once_is_one_request(tmp_path):
    """`make` passes on a SIGTERM that the whole group has received already."""
    with running_instance(tmp_path / "data") as instance:
        os.kill(instance.popen.pid, signal.SIGTERM)
        assert instance.stop(signal.SIGTERM) == 0
        assert "database system is shut down" in (tmp_path / "data" / "logs" / "postgres.log").read_text()


def test_second_ctrl_c_hurries(tmp_path):
    with running_instance(tmp_path / "data", kind="stubborn") as instance:
        worker = psutil.Process(instance.pid_of("worker"))
        os.kill(instance.popen.pid, signal.SIGINT)
        instance.wait_for("Stopping")
        with pytest.raises(subprocess.TimeoutExpired):
            instance.popen.wait(timeout=1.5)
        os.kill(instance.popen.pid, signal.SIGINT)
        assert instance.popen.wait(timeout=10) == 0
        assert is_gone(worker)


def test_killed_supervisor_leaves_no_process_and_starts_again(tmp_path):
    """Not even one that would drain on SIGTERM for longer than anybody waits."""
    with running_instance(tmp_path / "data", kind="stubborn") as instance:
        processes = instance.descendants()
        os.kill(instance.popen.pid, signal.SIGKILL)
        instance.popen.wait(timeout=10)
        eventually(lambda: all(is_gone(process) for process in processes), timeout_s=5.0)
        with running_instance(tmp_path / "data"):
            assert "left behind" not in instance.output()


@pytest.mark.parametrize("name", ["gateway", "valkey"])
def test_killed_process_comes_back(tmp_path, name):
    with running_instance(tmp_path / "data") as instance:
        old_pid = instance.pid_of(name)
        os.kill(old_pid, signal.SIGKILL)
        instance.wait_for(f"{name} ended unexpectedly (signal SIGKILL)")
        instance.wait_for(f"{name} started again")
        assert instance.pid_of(name) != old_pid
        eventually(lambda: answers_ok(f"http://127.0.0.1:{instance.port + 1}/readyz"))
        assert instance.stop() == 0


def test_end_of_the_database_is_the_end_of_the_instance(tmp_path):
    with running_instance(tmp_path / "data") as instance:
        processes = instance.descendants()
        os.kill(instance.pid_of("postgres"), signal.SIGQUIT)
        assert instance.popen.wait(timeout=30) == 1
        assert "Error: postgres ended unexpectedly" in instance.output()
        assert "received immediate shutdown request" in instance.output()
        assert all(is_gone(process) for process in processes)


def test_process_that_cannot_start_ends_the_start(tmp_path):
    instance = Instance(port_with_free_neighbour(), tmp_path / "data", "failing")
    assert instance.popen.wait(timeout=60) == 1
    assert "Ready:" not in instance.output()
    assert "worker ended unexpectedly (exit code 3)" in instance.output()
    assert instance.output().endswith("    the reason it fails\n")


def test_second_start_in_the_same_folder_is_refused(tmp_path):
    with running_instance(tmp_path / "data") as first:
        second = Instance(port_with_free_neighbour(), tmp_path / "data")
        assert second.popen.wait(timeout=30) == 1
        assert f"is in use by another instance (process {first.popen.pid}, run)" in second.output()
        assert answers_ok(f"http://127.0.0.1:{first.port}/readyz")


@pytest.mark.parametrize("offset", [0, 1])
def test_port_in_use_is_named(tmp_path, offset):
    with running_instance(tmp_path / "first") as first:
        second = Instance(first.port - 1 + offset, tmp_path / "second")
        assert second.popen.wait(timeout=30) == 1
        assert f"Error: Port {first.port} (PORT" in second.output()
        assert "cannot be used: another program listens on it" in second.output()


def test_two_instances_side_by_side(tmp_path):
    with running_instance(tmp_path / "one") as one, running_instance(tmp_path / "two") as two:
        urls = [parse_env((folder / "instance.env").read_text()) for folder in (one.data_dir, two.data_dir)]
        assert urls[0]["DATABASE_URL"] != urls[1]["DATABASE_URL"]
        assert one.stop() == 0
        assert answers_ok(f"http://127.0.0.1:{two.port}/readyz")


def test_configured_servers_win(tmp_path):
    with running_instance(tmp_path / "first") as first:
        values = parse_env((first.data_dir / "instance.env").read_text())
        named = {key: values[key] for key in ("DATABASE_URL", "VALKEY_URL")}
        named["STRIPE_SECRET_KEY"] = "sk_test_of_the_operator"
        with running_instance(tmp_path / "second", named_servers=named) as second:
            assert "DATABASE_URL is set in the environment" in second.output()
            assert {path.stem for path in (second.data_dir / "run").glob("*.pid")} == {
                "gateway",
                "web",
                "worker",
            }
            given = json.loads((second.data_dir / "step.json").read_text())
            assert given["DATABASE_URL"] == values["DATABASE_URL"]
            assert given["STRIPE_SECRET_KEY"] == "sk_test_of_the_operator"
            assert "STRIPE_API_BASE" not in given


def ask(authority: str, key: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(authority, timeout=60)
    try:
        connection.request("POST" if body else "GET", path, body, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the model server's wheel is tried on Linux")
def test_model_server_wants_its_key_and_answers(tmp_path):
    with running_instance(tmp_path / "data", kind="model"):
        values = parse_env((tmp_path / "data" / "instance.env").read_text())
        authority, key = values["DEVSTACK_MODEL_URL"].removeprefix("http://"), values["DEVSTACK_MODEL_KEY"]
        question = {
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "max_tokens": 24,
        }
        assert ask(authority, "wrong", "/v1/models")[0] == 401
        status, answer = ask(authority, key, "/v1/chat/completions", json.dumps(question))
        assert status == 200
        completion = json.loads(answer)
        assert completion["choices"][0]["message"]["content"]
        assert completion["usage"]["completion_tokens"] > 0
        assert [ask(authority, key, path)[0] for path in ("/metrics", "/slots", "/props")] == [200, 200, 200]
        simulated_engine_wants_its_key_and_writes_a_feed(values)


def simulated_engine_wants_its_key_and_writes_a_feed(values: dict[str, str]) -> None:
    authority, key = (
        values["DEVSTACK_SIMULATED_URL"].removeprefix("http://"),
        values["DEVSTACK_SIMULATED_KEY"],
    )
    question = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "rid": "first"}
    assert ask(authority, "wrong", "/v1/chat/completions", json.dumps(question))[0] == 401
    status, answer = ask(authority, key, "/v1/chat/completions", json.dumps(question))
    assert (status, json.loads(answer)["usage"]["completion_tokens"]) == (200, 4)
    (log,) = Path(values["DEVSTACK_SIMULATED_FEED"]).glob("*.log")
    assert b'"event": "request.received", "rid": "first"' in log.read_bytes()
