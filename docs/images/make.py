"""Draw the picture at the top of README.md again: ``python docs/images/make.py`` in the project's root."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from PIL import Image

from dccrn_lib import load_model
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.plotting import to_db

ROOT = Path(__file__).resolve().parents[2]
CLIP, MODEL, HOP = "fan_5db_en", "distil_dccrn", 100


def read(kind: str) -> torch.Tensor:
    """One of the clips of data/demo as (1, sample)."""
    samples, _ = soundfile.read(next((ROOT / "data" / "demo" / kind).glob(f"{CLIP}.*")), dtype="float32")
    return torch.from_numpy(samples)[None]


def main() -> None:
    noisy, clean = read("noisy"), read("clean")
    with torch.no_grad():
        enhanced = load_model(MODEL).eval()(noisy)
    titles = {"noisy": noisy, "enhanced: 1.1 M parameters": enhanced, "clean": clean}
    spectra = {title: ComplexSTFT()(wave)[0].abs().numpy() for title, wave in titles.items()}
    reference = max(np.abs(s).max() for s in spectra.values())
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (title, spectrum) in zip(axes, spectra.items(), strict=True):
        image = axis.imshow(
            to_db(spectrum, reference),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-70,
            vmax=0,
            extent=(0, spectrum.shape[-1] * HOP / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        axis.set(title=title, xlabel="time in s")
    axes[0].set_ylabel("frequency in kHz")
    figure.colorbar(image, ax=axes, label="dB", pad=0.01)
    path = Path(__file__).parent / "enhanced.png"
    Image.open(io.BytesIO(png(figure, dpi=130))).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
