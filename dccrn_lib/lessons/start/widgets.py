"""Interactive view of the first lesson: a noise gate to turn by hand, before a network does it.

The view is a pure function from settings to what is shown; the widget only calls it.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.lesson import players
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.start.figures import masking
from dccrn_lib.losses import si_snr_db

SHOWN = 2.2  # seconds


@dataclass(frozen=True)
class GateView:
    """What the gate does at one setting: the three panels, a line of text, players as HTML, SI-SNR in dB."""

    figure: Figure
    text: str
    sound: str
    si_snr_db: float


def gate_mask(spectrum: Tensor, strength: float, floor_db: float = -20.0) -> Tensor:
    """A mask from the quietest fifth of each frequency: max(1 - strength * level / |Y|, floor).

    Args:
        spectrum: complex (freq, frame).
        strength: how many times the level is taken away, >= 0; 0 lets everything pass.
        floor_db: lowest gain in dB.

    Returns:
        Real mask (freq, frame) in [floor, 1].
    """
    magnitude = spectrum.abs()
    level = torch.quantile(magnitude, 0.2, dim=1, keepdim=True)  # (freq, 1)
    return (1 - strength * level / magnitude.clamp_min(1e-8)).clamp(10 ** (floor_db / 20), 1)


def gate_view(noisy: np.ndarray, clean: np.ndarray, strength: float, floor_db: float = -20.0) -> GateView:
    """Apply the gate: noisy and clean are (sample,) at 16 kHz."""
    stft = ComplexSTFT()
    y, s = (torch.from_numpy(np.asarray(z, dtype=np.float32)) for z in (noisy, clean))
    spectrum = stft(y[None])[0]
    mask = gate_mask(spectrum, strength, floor_db)
    estimate = stft.inverse((mask * spectrum)[None], len(y))
    before, after = si_snr_db(y[None], s[None]).item(), si_snr_db(estimate, s[None]).item()
    frames = int(SHOWN * 160)
    figure = masking(spectrum[:, :frames].numpy(), mask[:, :frames].numpy())
    text = f"strength {strength:g}, floor {floor_db:g} dB: SI-SNR {before:.1f} dB noisy, {after:.1f} dB behind the gate"
    loudest = max(1.0, estimate.abs().max().item())
    cut = int(SHOWN * 16000)
    sound = str(players({"noisy": y[:cut] / loudest, "behind the gate": estimate[0, :cut] / loudest}).data)
    return GateView(figure, text, sound, after)


def gate(noisy: np.ndarray, clean: np.ndarray) -> ipywidgets.VBox:
    """Sliders for strength and floor above the three panels, the SI-SNR and two players."""
    strength = ipywidgets.FloatSlider(
        value=1.5, min=0, max=6, step=0.25, description="strength", continuous_update=False
    )
    floor = ipywidgets.IntSlider(value=-20, min=-40, max=0, step=2, description="floor (dB)", continuous_update=False)
    picture, text, sound = ipywidgets.Image(format="png"), ipywidgets.HTML(), ipywidgets.HTML()

    def update(_change=None) -> None:
        view = gate_view(noisy, clean, strength.value, floor.value)
        picture.value, text.value, sound.value = png(view.figure), html.escape(view.text), view.sound

    for slider in (strength, floor):
        slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([ipywidgets.HBox([strength, floor], layout={"flex_flow": "row wrap"}), picture, text, sound])
