"""Usage feeds: what engines write of each call beside answering it, and how that goes wrong.

- `told.py` is what a record tells; `sglang.py`, `vllm.py`, `otlp.py` and `generic.py` put it into words;
- `telling.py` knows which records an engine writes of a call;
- `writer.py` writes lines into `files.py`, `push.py` sends bodies; both do what the dice of `faults.py` say,
  and `injected.py` keeps the truth about it.

Feeds never lie about what was generated.
"""
