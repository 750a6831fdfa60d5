"""Nothing is written into the home folder, nothing is looked up: ONNX Runtime's telemetry is off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("first", ["import dccrn_lib", "from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer"])
def test_onnx_runtime_leaves_no_trace_in_the_home_folder(first: str, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    code = f"{first}; import onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
