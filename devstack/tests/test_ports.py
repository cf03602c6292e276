"""Ports: predictable, free, below the range of outgoing connections."""

from __future__ import annotations

import socket

from devstack import ports


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind((ports.HOST, ports.choose(ports.first_choice(4321, 0))))
    listener.listen(1)
    return listener


def test_first_choices_of_neighbouring_instances_do_not_meet():
    chosen = [ports.first_choice(port, slot) for port in range(8000, 9000, 2) for slot in range(5)]
    assert len(set(chosen)) == len(chosen)
    assert all(28_000 <= port < 32_768 for port in chosen)


def test_port_in_use_is_passed_over():
    with listening() as listener:
        taken = listener.getsockname()[1]
        assert ports.why_not_free(taken) == "another program listens on it"
        assert ports.choose(taken) != taken
    assert ports.why_not_free(taken) is None
    assert ports.choose(taken, avoid={taken}) != taken


def test_search_goes_round():
    assert 28_000 <= ports.choose(32_767, avoid={32_767}) < 32_767


def test_impossible_port_has_a_reason():
    assert ports.why_not_free(70_000) == "ports go from 1 to 65535"
