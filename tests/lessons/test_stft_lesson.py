"""Figures and widgets of the lesson on the complex STFT."""

from __future__ import annotations

import io
import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.stft import figures, widgets
from dccrn_lib.runtime.errors import ConfigError

matplotlib.use("agg")


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """A quarter of a second of a voice-like signal, (sample,)."""
    t = np.arange(4000) / 16000
    return (sum(np.cos(2 * np.pi * 110 * k * t) / k for k in range(1, 20)) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def spectrum(voice) -> np.ndarray:
    return ComplexSTFT()(torch.from_numpy(voice)[None])[0].numpy()


def test_frames_stand_where_the_padding_rule_puts_them(voice):
    figure = figures.frames(voice, np.hanning(400), 100, count=5)
    lower = figure.axes[1]
    assert [line.get_xdata()[0] for line in lower.lines] == [-300, -200, -100, 0, 100]
    assert lower.get_xlabel().startswith("sample (100 samples are 6.25 ms")


def test_round_trip_returns_what_it_took():
    axis = figures.round_trip().axes[0]
    place = {t.get_text(): t.get_position() for t in axis.texts}
    assert place["DFT"][0] == place["inverse DFT"][0] and place["DFT"][1] > place["inverse DFT"][1]
    assert place["recording $y$"][0] == place[r"estimate $\hat s$"][0]


def test_envelope_keeps_the_extremes():
    x = np.random.default_rng(0).standard_normal(10_000)
    low, high = figures._envelope(x, columns=100)
    assert (low.min(), high.max()) == (x.min(), x.max()) and len(low) == len(high) == 100
    assert np.array_equal(figures._envelope(x[:50])[0], x[:50])


def test_winding_ends_at_the_sum():
    terms = np.exp(1j * np.linspace(0, 1, 50))
    figure = figures.winding({"on": terms, "off": np.exp(2j * np.pi * np.arange(50) / 50)})
    line = figure.axes[0].lines[0]
    assert complex(line.get_xdata()[-1], line.get_ydata()[-1]) == pytest.approx(terms.sum())
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_phase_panels(spectrum):
    zeros = np.zeros(spectrum.shape)
    figure = figures.phase(spectrum, zeros, zeros, 100, seconds=(0.0, 0.2))
    assert [a.get_title() for a in figure.axes[:4]] == [
        "magnitude",
        "phase as it comes",
        "frequency offset from the bin's centre",
        "delay from the window's centre",
    ]
    assert figure.axes[0].get_ylabel() == "frequency (kHz)" and figure.axes[2].get_xlabel() == "time (s)"


def test_geometry_of_masks_names_the_errors():
    speech, noise = 1.0 + 0.2j, -0.05 + 1.1j
    figure = figures.mask_geometry(speech, noise)
    mixture = speech + noise
    nearest = abs((speech / mixture).imag) * abs(mixture)  # the perpendicular
    texts = " ".join(t.get_text() for t in figure.axes[0].texts)
    assert f"phase-sensitive mask, error {nearest:.2f}" in texts
    ratio = abs(abs(speech) / abs(mixture) * mixture - speech)
    assert f"magnitude ratio mask, error {ratio:.2f}" in texts and ratio > nearest


def test_other_figures_have_labelled_axes(voice, spectrum):
    magnitude = np.abs(spectrum)
    drawn = [
        figures.sentence(voice, 500, 1600),
        figures.coverage({"ours": np.full(50, 4)}),
        figures.tone_spectra({"box": magnitude[:, 20] + 1e-3}, 1000),
        figures.zero_padding(magnitude[:, 20], {"FFT 512": magnitude[:, 20]}),
        figures.overlap_weights({"Hann": np.ones(100)}),
        figures.masks({"binary": magnitude > 1, "ratio": magnitude.clip(0, 1)}, 100),
        figures.curves([1, 2, 4], {"noisy": [1, 2, 3]}, "window (ms)", "SI-SNR (dB)", log=True),
        figures.layers({"25 ms": spectrum}, 100, seconds=(0, 0.2)),
    ]
    for figure in drawn:
        axes = [a for a in figure.axes if a.get_xlabel() or a.get_ylabel()]
        assert any(a.get_xlabel() for a in axes) and any(a.get_ylabel() for a in axes)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.0])
def test_mix_has_the_snr_it_was_asked_for(voice, snr_db):
    clean, noise = widgets.mix(voice, "fan", snr_db)
    assert clean.shape == noise.shape == voice.shape
    assert 10 * math.log10(np.sum(clean**2) / np.sum(noise**2)) == pytest.approx(snr_db, abs=0.01)


def test_mix_lowers_both_rather_than_clip(voice):
    clean, noise = widgets.mix(voice * 3, "rain", -10.0)
    assert np.abs(clean + noise).max() == pytest.approx(widgets.PEAK, abs=1e-3)
    gain = clean[100] / (3 * voice[100])
    assert 0 < gain < 1 and np.allclose(clean, 3 * gain * voice, atol=1e-4)


def test_mix_names_an_unknown_noise(voice):
    with pytest.raises(ConfigError, match="unknown noise 'fam'.*fan"):
        widgets.mix(voice, "fam", 0.0)


def test_mixer_view_says_what_noise_does_to_phase(voice):
    quiet, loud = (widgets.mixer_view(voice, "fan", snr) for snr in (25.0, -5.0))
    degrees = [float(view.text.split("phase is ")[1].split()[0]) for view in (quiet, loud)]
    assert degrees[0] < degrees[1] < 90
    assert quiet.sound.count("<audio") == 2


def test_explorer_view_counts_frames_and_numbers(voice):
    view = widgets.explorer_view(voice, 400, 0.75, "hann")
    assert "160.0 frames per second, 5.1 real numbers" in view.text and "1.50 .. 1.50" in view.text
    assert "0.50 .. 1.00" in widgets.explorer_view(voice, 400, 0.5, "hann").text


def test_mixer_answers_its_slider(voice):
    box = widgets.mixer({"a": voice}, snr_db=5.0)
    controls, picture, text, sound = box.children
    before = picture.value, text.value, sound.value
    controls.children[2].value = -5.0
    assert all(a != b for a, b in zip(before, (picture.value, text.value, sound.value), strict=True))


def test_explorer_answers_its_slider(voice):
    box = widgets.explorer(voice)
    controls, picture, text, _ = box.children
    assert "160.0 frames per second" in text.value
    before = picture.value
    controls.children[0].value = 800
    assert "80.0 frames per second" in text.value and picture.value != before
    assert Image.open(io.BytesIO(picture.value)).width > 500
