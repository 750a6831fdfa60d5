"""The mask explorer: build a mask by hand, see and hear what it does to a noisy sentence."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.dccrn.figures import explored
from dccrn_lib.lessons.lesson import player
from dccrn_lib.lessons.panels import image_html
from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.dccrn import apply_mask
from dccrn_lib.runtime.errors import ConfigError

BANDS_HZ = (0, 250, 500, 1000, 2000, 4000, 8000)  # edges
DEFAULT_GAINS_DB = (0.0, -3.0, -3.0, -4.0, -8.0, -12.0)
DEFAULT_GATE_DB = -20.0


@dataclass(frozen=True)
class Exploration:
    """What a mask did.

    Args:
        noisy, mask, enhanced: complex64 (freq, frame).
        samples: (sample,), the enhanced waveform.
        noisy_db, enhanced_db: SI-SNR to the clean sentence in dB.
        gain: of the clean sentence within the output; negative = inverted.
    """

    noisy: Tensor
    mask: Tensor
    enhanced: Tensor
    samples: Tensor
    noisy_db: float
    enhanced_db: float
    gain: float

    def __str__(self) -> str:
        return (
            f"SI-SNR {self.noisy_db:.1f} dB -> {self.enhanced_db:.1f} dB "
            f"({self.enhanced_db - self.noisy_db:+.1f} dB), gain {self.gain:+.2f} (n = 1)"
        )


def mask_from_bands(
    spectrum: Tensor, gains_db: Sequence[float], phase: float, mode: str, gate_db: float, sample_rate: int = 16000
) -> Tensor:
    """A complex mask from six band gains, one phase and a gate.

    Args:
        spectrum: complex64 (freq, frame), the noisy one.
        gains_db: one gain per band of :data:`BANDS_HZ` in dB.
        phase: of the mask, degrees.
        mode: "E", "C" or "R". In mode E the decoder's output M is chosen so that tanh|M| is the gain (below 1).
        gate_db: bins this far or further below the loudest bin get 20 dB less; -120 leaves all open.
        sample_rate: in Hz.

    Returns:
        The network's output M, complex64 (freq, frame), to be given to ``apply_mask``; 0 at DC.

    Raises:
        ConfigError: not six gains.
    """
    if len(gains_db) != len(BANDS_HZ) - 1:
        raise ConfigError(f"expected {len(BANDS_HZ) - 1} band gains, got {len(gains_db)}")
    freqs = torch.linspace(0, sample_rate / 2, spectrum.shape[0])
    gain = torch.zeros(spectrum.shape[0])
    for low, high, g in zip(BANDS_HZ[:-1], BANDS_HZ[1:], gains_db, strict=True):
        gain[(freqs >= low) & (freqs <= high)] = 10 ** (g / 20)
    level = spectrum.abs() / spectrum.abs().max().clamp_min(1e-12)
    magnitude = gain[:, None] * torch.where(level < 10 ** (gate_db / 20), 0.1, 1.0)  # (freq, frame)
    if mode == "E":
        magnitude = torch.atanh(magnitude.clamp_max(0.999))
    mask = torch.polar(magnitude, torch.full_like(magnitude, float(np.radians(phase))))
    mask[0] = 0
    return mask


def explore(
    noisy: Tensor,
    clean: Tensor,
    gains_db: Sequence[float] = DEFAULT_GAINS_DB,
    mode: str = "C",
    phase: float = 0.0,
    gate_db: float = DEFAULT_GATE_DB,
    sample_rate: int = 16000,
) -> Exploration:
    """Filter a sentence with a mask built by hand; the callback of the widget.

    Args:
        noisy, clean: (sample,).
        gains_db, mode, phase, gate_db, sample_rate: see :func:`mask_from_bands`.
    """
    stft = ComplexSTFT()
    spectrum = stft(noisy[None])  # (1, freq, frame)
    mask = mask_from_bands(spectrum[0], gains_db, phase, mode, gate_db, sample_rate)[None]
    enhanced = apply_mask(mask, spectrum, mode)
    samples = stft.inverse(enhanced, noisy.shape[-1]).clamp(-1, 1)  # (1, sample)
    gain = (samples[0] * clean).sum() / clean.square().sum().clamp_min(1e-12)
    return Exploration(
        spectrum[0],
        mask[0],
        enhanced[0],
        samples[0],
        si_snr_db(noisy, clean).item(),
        si_snr_db(samples[0], clean).item(),
        gain.item(),
    )


def draw(result: Exploration) -> Figure:
    """Noisy, gain and result of an exploration."""
    return explored(result.noisy.numpy(), result.mask.numpy(), result.enhanced.numpy())


def render(result: Exploration) -> str:
    """HTML of an exploration: the figure, the numbers, a player. What the widget shows."""
    sound = player(result.samples, title="your mask").data
    return f"{image_html(draw(result), 'spectra')}<p>{html.escape(str(result))}</p>{sound}"


def mask_explorer(noisy: Tensor, clean: Tensor):
    """The widget: six band gains, a gate, mode and phase; shows spectra, numbers and a player.

    Args:
        noisy, clean: (sample,) at 16 kHz.

    Returns:
        An ipywidgets box.
    """
    import ipywidgets as widgets

    wide = {"description_width": "130px"}  # holds "4000-8000 Hz (dB)"

    def slider(value: float, low: float, high: float, step: float, label: str):
        return widgets.FloatSlider(
            value,
            min=low,
            max=high,
            step=step,
            description=label,
            continuous_update=False,
            readout_format=".0f",
            style=wide,
            layout={"width": "330px"},
        )

    bands = [
        slider(g, -40, 12, 1, f"{low}-{high} Hz (dB)")
        for g, low, high in zip(DEFAULT_GAINS_DB, BANDS_HZ[:-1], BANDS_HZ[1:], strict=True)
    ]
    mode = widgets.Dropdown(options=["C", "E", "R"], value="C", description="mode", style=wide)
    phase = slider(0, -180, 180, 15, "phase (degrees)")
    gate = slider(DEFAULT_GATE_DB, -120, 0, 2, "gate (dB)")
    view = widgets.HTML()

    def refresh(_change=None) -> None:
        gains = [band.value for band in bands]
        # a Dropdown with options always has a value
        view.value = render(explore(noisy, clean, gains, mode.value, phase.value, gate.value))  # pyright: ignore[reportArgumentType]

    for control in (*bands, mode, phase, gate):
        control.observe(refresh, names="value")
    refresh()
    columns = [widgets.VBox(bands), widgets.VBox([mode, phase, gate])]
    return widgets.VBox([widgets.HBox(columns, layout={"flex_flow": "row wrap"}), view])
