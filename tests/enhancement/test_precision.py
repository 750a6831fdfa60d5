"""bf16 is near fp32 and never taken unasked."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime import devices
from dccrn_lib.runtime.errors import ConfigError

needs_bfloat16 = pytest.mark.skipif(
    not devices.has_bfloat16(torch.device("cpu")), reason="this CPU has no bfloat16 arithmetic"
)


@pytest.fixture(scope="module")
def noisy(request):
    from dccrn_lib.runtime.paths import project_root

    samples, rate = soundfile.read(project_root() / "data/demo/noisy/fan_5db_en.ogg", dtype="float32")
    assert rate == 16000
    return np.tile(samples, 4)


@needs_bfloat16
@pytest.mark.parametrize("name", ["distil_dccrn", "uformer"])
@pytest.mark.parametrize("seconds", [3, 8])  # whole, and for the DCCRN streamed
def test_bf16_is_near_fp32_and_differs_from_it(name, seconds, noisy):
    model, samples = load_model(name), noisy[: seconds * 16000]
    exact, fast = (enhance_waveform(model, samples, precision=p) for p in ("fp32", "bf16"))
    assert fast.dtype == np.float32 and (fast != exact).any()
    assert float(si_snr_db(torch.from_numpy(fast), torch.from_numpy(exact))) > 40
    assert np.array_equal(exact, enhance_waveform(model, samples))


@needs_bfloat16
def test_the_command_takes_the_precision_for_one_file_and_for_folders(noisy, tmp_path):
    soundfile.write(tmp_path / "a.wav", noisy[:32000], 16000, "FLOAT")
    soundfile.write(tmp_path / "b.wav", noisy[16000:48000], 16000, "FLOAT")
    run = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), "--quiet"]
    for precision, more in (("fp32", []), ("bf16", []), ("bf16", ["--workers", "2"])):
        out = tmp_path / f"{precision}{len(more)}"
        assert cli.main(["enhance", *run, "--out", str(out), "--precision", precision, *more]) == 0
    read = {p.name: soundfile.read(p / "a.wav")[0] for p in tmp_path.iterdir() if p.is_dir()}
    assert np.array_equal(read["bf160"], read["bf162"]) and not np.array_equal(read["bf160"], read["fp320"])
    one = ["enhance", str(tmp_path / "a.wav"), str(tmp_path / "one.wav"), "--precision", "bf16"]
    assert cli.main(one) == 0
    assert np.array_equal(soundfile.read(tmp_path / "one.wav")[0], read["bf160"])


def test_a_cpu_that_would_emulate_it_says_so(noisy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    soundfile.write(tmp_path / "a.wav", noisy[:16000], 16000)
    assert cli.main(["enhance", str(tmp_path / "a.wav"), "--out", str(tmp_path / "o"), "--precision", "bf16"]) == 2
    assert "precision fp32" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_an_unknown_precision_is_refused(noisy):
    with pytest.raises(ConfigError, match="fp32, bf16"):
        enhance_waveform("distil_dccrn", noisy[:1600], precision="fp16")
