"""The process behind `devstack.model_server`: serves one model file until SIGTERM.

Usage: python -m devstack.model_child MODEL.gguf PORT NAME THREADS, with the key in DEVSTACK_MODEL_KEY.
"""

from __future__ import annotations

import os
import signal
import sys

import xllamacpp

SLOTS = 4
CONTEXT_TOKENS = 8192
"""Of all slots together: each gets a quarter."""


def main(model_file: str, port: str, name: str, threads: str) -> None:
    # The server has no threads of Python's to join: the default action ends it at once, in the middle of a
    # stream too.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    params = xllamacpp.CommonParams()
    params.model.path = model_file
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.api_keys = [os.environ.pop("DEVSTACK_MODEL_KEY")]
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = int(threads)
    params.cpuparams_batch.n_threads = int(threads)
    params.use_jinja = True
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.endpoint_props = True
    params.ui = False
    params.offline = True
    params.verbosity = 2
    server = xllamacpp.Server(params)
    print(f"serving {name} on {server.listening_address}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
