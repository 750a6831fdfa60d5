"""Other projects' networks: what is there runs in turns with ours, what is not is named with its reason."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dccrn_lib.experiments import peers, speed
from dccrn_lib.runtime.errors import ConfigError

CLIP = np.zeros(1600, np.float32)


class Halved(torch.nn.Module):
    """Stands for a foreign network: any arguments, half of what it hears."""

    heard: list[tuple[int, ...]] = []

    def __init__(self, *args, **options) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.heard.append(tuple(x.shape))
        return x / 2


@pytest.fixture
def installed(monkeypatch):
    """asteroid and denoiser stand there, each with one network; deepfilternet does not."""

    def version(package: str) -> str:
        if package not in ("asteroid", "denoiser"):
            raise PackageNotFoundError(package)
        return "1.2"

    monkeypatch.setattr(peers, "version", version)
    monkeypatch.setitem(sys.modules, "asteroid.models", SimpleNamespace(DCCRNet=Halved))
    monkeypatch.setitem(sys.modules, "denoiser.demucs", SimpleNamespace(Demucs=Halved))
    Halved.heard.clear()


def test_those_that_are_there_run(installed):
    calls, skipped = peers.peer_calls(CLIP)
    assert sorted(calls) == [
        "asteroid DCCRNet DCCRN-CL, asteroid 1.2",
        "asteroid DCCRNet mini, asteroid 1.2",
        "denoiser dns48, denoiser 1.2",
        "denoiser dns64, denoiser 1.2",
    ]
    assert Halved.heard == [(1, 1600), (1, 1600), (1, 1, 1600), (1, 1, 1600)]
    assert skipped == [
        {"measurement": "DeepFilterNet3 (48 kHz)", "reason": "not installed (pip install deepfilternet)"}
    ]


def test_one_that_fails_says_why(installed, monkeypatch):
    def broken(*args, **options):
        raise TypeError("input_size should be an int\nand more")

    monkeypatch.setitem(sys.modules, "asteroid.models", SimpleNamespace(DCCRNet=broken))
    calls, skipped = peers.peer_calls(CLIP)
    assert sorted(calls) == ["denoiser dns48, denoiser 1.2", "denoiser dns64, denoiser 1.2"]
    assert skipped[0] == {
        "measurement": "asteroid DCCRNet DCCRN-CL",
        "reason": "asteroid 1.2 does not run here: TypeError: input_size should be an int",
    }


def test_rows_have_ours_as_reference(installed):
    rows, skipped = speed.bench_peers([], quick=True)
    assert len(rows) == 4 and len(skipped) == 1
    assert len({row["reference"] for row in rows}) == 1 and all(row["real_time_factor"] > 0 for row in rows)


@pytest.mark.parametrize("text", ["", "gtcrn", "gtcrn=a.onnx", "gtcrn=a.onnx@", "gtcrn=a.onnx@0", "=a@3", "a=b@1.2.3"])
def test_onnx_needs_name_file_and_milliseconds(text):
    with pytest.raises(ConfigError, match="NAME=FILE@MILLISECONDS"):
        peers.parse_onnx(text)


def test_onnx_file_of_a_stream_runs(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    pytest.importorskip("onnx", reason="the extra export is not installed")
    from dccrn_lib.enhancement.onnx_export import export_onnx
    from dccrn_lib.networks.presets import build_model

    file = export_onnx(build_model("distil_dccrn_mini").eval(), tmp_path / "mini.onnx")
    assert len(peers.onnx_call(file)()) > 1  # a spectrum and its states
    rows, _ = speed.bench_peers([f"mini={file}@6.25"], quick=True)
    assert rows[-1]["reference"] == 6.25 and rows[-1]["measurement"].startswith("mini, ONNX")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ConfigError, match="not a model that ONNX Runtime reads"):
        peers.onnx_call(tmp_path / "bad.onnx")
    with pytest.raises(ConfigError, match="no such file"):
        peers.onnx_call(tmp_path / "none.onnx")
