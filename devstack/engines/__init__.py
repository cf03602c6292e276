"""Engine simulators: one process that looks like a serving backend from the other side of the wire.

Start one with `python -m devstack.engines --flavour vllm --port 21000`, or from a test with
`devstack.engines.testing.start_engine`. It speaks HTTP as llama.cpp, vLLM, SGLang or a plain
OpenAI-compatible server does, generates a known number of known tokens, misbehaves on request
(`directive.py`) and keeps exact books of what it generated (`books.py`).

Nothing here imports the rest of the project and nothing in the product may import this package.
"""
