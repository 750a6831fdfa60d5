"""Interactive views of the lesson on the complex STFT: an SNR and noise mixer, and a hop and window explorer.

Each view is a pure function from settings to what is shown; the widget only calls it and puts the result on the page.
Pictures travel as PNG, so the widgets work without a running plot backend.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from dccrn_lib.audio.stft import ComplexSTFT, STFTConfig
from dccrn_lib.corpus.mixing import mix_at_snr
from dccrn_lib.corpus.synthesis.noise import make_noise
from dccrn_lib.corpus.synthesis.noise_kinds import NOISE_KINDS
from dccrn_lib.lessons.lesson import players
from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.plotting import draw_spectrogram, new_figure
from dccrn_lib.losses import si_snr_db
from dccrn_lib.runtime.errors import ConfigError, nearest_name

PEAK = 0.98
SHOWN = 1.8  # seconds of a spectrogram


@dataclass(frozen=True)
class View:
    """What a widget shows: a picture, a line of text and, for the mixer, players (HTML)."""

    figure: Figure
    text: str
    sound: str = ""


def mix(clean: np.ndarray, kind: str, snr_db: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clean speech and generated noise at an SNR.

    Args:
        clean: (sample,) at 16 kHz.
        kind: a name in ``dccrn_lib.corpus.synthesis.noise_kinds.NOISE_KINDS``.
        snr_db: in dB over the whole clip.
        seed: of the noise.

    Returns:
        (clean, noise), both (sample,): their sum is the mixture. Where it would exceed full scale, both are lowered
        by one factor.

    Raises:
        ConfigError: unknown kind of noise.
    """
    if kind not in NOISE_KINDS:
        raise ConfigError(f"unknown noise {kind!r}; {nearest_name(kind, list(NOISE_KINDS))}")
    clean = np.asarray(clean, dtype=np.float32)
    noise = make_noise(kind, len(clean) / 16000, np.random.default_rng(seed))[: len(clean)].astype(np.float32)
    noise = mix_at_snr(clean, noise, snr_db).astype(np.float32)
    scale = np.float32(min(1.0, PEAK / np.abs(clean + noise).max()))
    return clean * scale, noise * scale


def mixer_view(clean: np.ndarray, kind: str, snr_db: float, seed: int = 0) -> View:
    """Spectrograms and players of clean and mixture, and what the noise does to magnitude and phase in numbers."""
    speech, noise = mix(clean, kind, snr_db, seed)
    stft = ComplexSTFT()
    s, y = (stft(torch.from_numpy(x)[None])[0] for x in (speech, speech + noise))
    figure, axes = new_figure(1, 2, height=2.5, sharey=True)
    reference = float(torch.maximum(s.abs().max(), y.abs().max()))
    for axis, spectrum, title in ((axes[0, 0], y, f"{kind} at {snr_db:g} dB"), (axes[0, 1], s, "clean")):
        image = draw_spectrogram(axis, spectrum.numpy(), title=title, reference=reference)
        axis.set_xlim(0, min(SHOWN, len(speech) / 16000))
    figure.colorbar(image, ax=axes, label="dB")
    loud = s.abs() > 0.01 * s.abs().max()
    turned = torch.rad2deg((y * s.conj()).angle().abs())[loud].mean()
    measured = si_snr_db(torch.from_numpy(speech + noise)[None], torch.from_numpy(speech)[None]).item()
    text = (
        f"SI-SNR {measured:.1f} dB; in the {int(loud.sum())} bins where speech is within 40 dB of its loudest, "
        f"the phase is {turned:.0f} degrees off on average"
    )
    sound = str(players({"noisy": speech + noise, "clean": speech}).data)
    return View(figure, text, sound)


def explorer_view(x: np.ndarray, window_length: int, overlap: float, window: str) -> View:
    """What window and hop do: the overlap-added squared window, the spectrogram, and the numbers.

    Args:
        x: (sample,) at 16 kHz.
        window_length: in samples, 32 to 4096.
        overlap: fraction of a window that its neighbour covers too, [0, 1).
        window: "hann" or "sqrt_hann".
    """
    wave = torch.as_tensor(np.asarray(x), dtype=torch.float32)[None]
    hop = max(1, round(window_length * (1 - overlap)))
    fft_size = 2 ** int(np.ceil(np.log2(window_length)))
    stft = ComplexSTFT(STFTConfig(window_length, hop, fft_size, window))
    spectrum = stft(wave)
    frames = max(8, 3 * window_length // hop)
    weight = torch.zeros((frames - 1) * hop + window_length)
    for k in range(frames):
        weight[k * hop : k * hop + window_length] += stft.window**2
    inner = weight[window_length - hop : -(window_length - hop) or None]
    error = (stft.inverse(spectrum, wave.shape[1]) - wave).abs().max().item()
    figure, axes = new_figure(1, 2, height=2.7)
    axes[0, 0].plot(weight.numpy(), color="#0072b2", label="sum of squared windows")
    axes[0, 0].plot(stft.window.numpy() ** 2, color="#d55e00", label="one squared window")
    axes[0, 0].set(xlabel="sample", title=f"window {window_length}, hop {hop}, {window}")
    axes[0, 0].set_ylim(0, 1.5 * weight.max().item())
    axes[0, 0].legend(loc="upper center")
    image = draw_spectrogram(axes[0, 1], spectrum[0].numpy(), hop)
    axes[0, 1].set(ylim=(0, 4), xlim=(0, min(SHOWN, wave.shape[1] / 16000)))
    axes[0, 1].set(title=f"bins {16000 / fft_size:.1f} Hz apart, frames {hop / 16:.2f} ms")
    figure.colorbar(image, ax=axes[0, 1], label="dB")
    text = (
        f"{16000 / hop:.1f} frames per second, {2 * stft.frequencies / hop:.1f} real numbers for each sample; "
        f"squared windows add up to {inner.min():.2f} .. {inner.max():.2f}; error of analysis and synthesis {error:.0e}"
    )
    return View(figure, text)


def mixer(clips: dict[str, np.ndarray], snr_db: float = 5.0, kind: str = "fan", seed: int = 0) -> ipywidgets.VBox:
    """Mix a clip with generated noise and hear it.

    Args:
        clips: title -> clean speech, (sample,) at 16 kHz.
        snr_db, kind: settings to start from.
        seed: of the noise.
    """
    clip = ipywidgets.Dropdown(options=list(clips), description="speech")
    noise = ipywidgets.Dropdown(options=list(NOISE_KINDS), value=kind, description="noise")
    snr = _slider(
        ipywidgets.FloatSlider, value=snr_db, min=-15, max=30, step=1, description="SNR (dB)", readout_format=".0f"
    )
    # a Dropdown with options always has a value
    return _panel(lambda: mixer_view(clips[clip.value], noise.value, snr.value, seed), clip, noise, snr)  # pyright: ignore[reportArgumentType]


def explorer(x: np.ndarray, window_length: int = 400, hop_length: int = 100) -> ipywidgets.VBox:
    """Choose window and hop and see time against frequency resolution, ripple and cost."""
    length = _slider(ipywidgets.IntSlider, value=window_length, min=80, max=2048, step=16, description="window")
    overlap = ipywidgets.Dropdown(
        options=[("1/4", 0.25), ("1/2", 0.5), ("3/5 (Uformer)", 0.6), ("3/4 (DCCRN)", 0.75), ("7/8", 0.875)],
        value=min((0.25, 0.5, 0.6, 0.75, 0.875), key=lambda v: abs(v - 1 + hop_length / window_length)),
        description="overlap",
    )
    window = ipywidgets.Dropdown(options=["hann", "sqrt_hann"], description="type")
    # a Dropdown with options always has a value
    return _panel(lambda: explorer_view(x, length.value, overlap.value, window.value), length, overlap, window)  # pyright: ignore[reportArgumentType]


def _slider(kind: type, **settings):
    return kind(continuous_update=False, **settings)


def _panel(render, *controls) -> ipywidgets.VBox:
    """Controls above a picture, a line of text and players; ``render`` makes the View for their values."""
    picture, text, sound = ipywidgets.Image(format="png"), ipywidgets.HTML(), ipywidgets.HTML()

    def update(_change=None) -> None:
        view = render()
        picture.value = png(view.figure)
        text.value = html.escape(view.text)
        sound.value = view.sound

    for control in controls:
        control.observe(update, names="value")
    update()
    return ipywidgets.VBox([ipywidgets.HBox(list(controls), layout={"flex_flow": "row wrap"}), picture, text, sound])
