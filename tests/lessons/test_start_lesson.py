"""Figures and the gate of the first lesson."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch

from dccrn_lib import count_parameters, load_model
from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.plotting import COLOURS
from dccrn_lib.lessons.start import figures, widgets
from dccrn_lib.runtime.paths import notebooks_dir, weights_dir

matplotlib.use("agg")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """(noisy, clean): tone bursts in steady noise, half a second, (sample,)."""
    t = np.arange(8000) / 16000
    clean = 0.3 * np.sin(2 * np.pi * 700 * t) * (np.sin(2 * np.pi * 4 * t) > 0.3)
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(t))
    return (clean + noise).astype(np.float32), clean.astype(np.float32)


def test_diagram_joins_twelve_pairs():
    axis = figures.distillation_diagram().axes[0]
    links = [line for line in axis.lines if line.get_color() == COLOURS["student_at_kl"]]
    assert len(links) == 12 and all(line.get_xdata()[0] == line.get_xdata()[1] for line in links)
    texts = [t.get_text() for t in axis.texts]
    for wanted in ("AT-KL: 12 pairs of layers", "conformer", "LSTM", "clean speech", "noisy\nspeech"):
        assert wanted in texts


def test_map_shows_every_lesson_once():
    texts = [t.get_text() for t in figures.concept_map().axes[0].texts]
    titles = [text.split()[0] for text in texts if text[:2].isdigit() and text[0] == "0"]
    assert sorted(titles) == [path.stem.split("_")[0] for path in sorted(notebooks_dir().glob("[0-9]*.ipynb"))]


def test_masking_panels(pair):
    spectrum = ComplexSTFT()(torch.from_numpy(pair[0])[None])[0].numpy()
    figure = figures.masking(spectrum, np.ones(spectrum.shape))
    assert [a.get_title() for a in figure.axes[:3]] == ["noisy", "times the mask", "is the estimate"]
    assert all(a.get_xlabel() == "time (s)" for a in figure.axes[:3])
    left, right = (figure.axes[i].images[0].get_array() for i in (0, 2))
    assert np.allclose(left, right, atol=0.01)


def test_sizes_and_scores():
    figure = figures.sizes({"teacher": 2_000_000, "student": 1_000_000}, {"teacher": 10**9, "student": 5 * 10**8})
    assert [a.get_xlabel() for a in figure.axes] == ["parameters (millions)", "GMAC for one second of audio"]
    assert [p.get_width() for p in figure.axes[0].patches] == [2.0, 1.0]
    table = {"noisy": {"a": 1.0, "b": -1.0}, "clean": {"a": 2.0, "b": math.nan}}
    figure = figures.scores(table, {"a": "A", "b": "B"})
    assert [len(a.patches) for a in figure.axes] == [1, 1]
    assert [a.get_title() for a in figure.axes] == ["clean speech: 2.00", ""]
    assert [a.get_ylabel() for a in figure.axes] == ["A", "B"]


def test_gate_mask_by_hand():
    spectrum = torch.tensor([[1.0, 1.0, 2.0, 4.0, 10.0, 1.0]], dtype=torch.complex64)
    mask = widgets.gate_mask(spectrum, 1.0, floor_db=-20.0)
    assert torch.allclose(mask, torch.tensor([[0.1, 0.1, 0.5, 0.75, 0.9, 0.1]]))
    assert torch.equal(widgets.gate_mask(spectrum, 0.0), torch.ones(1, 6))


def test_gate_helps_and_says_so(pair):
    open_, some = (widgets.gate_view(*pair, strength) for strength in (0.0, 2.0))
    assert some.si_snr_db > open_.si_snr_db + 1
    assert f"{some.si_snr_db:.1f} dB behind the gate" in some.text
    assert some.sound.count("<audio") == 2


def test_gate_answers_its_sliders(pair):
    box = widgets.gate(*pair)
    controls, picture, text, sound = box.children
    for slider, value in zip(controls.children, (4.0, -6), strict=True):
        before = picture.value, text.value, sound.value
        slider.value = value
        assert all(a != b for a, b in zip(before, (picture.value, text.value, sound.value), strict=True))


def test_weights_without_a_single_mask_are_named():
    lesson = nbformat.read(notebooks_dir() / "00_start_here.ipynb", as_version=4)
    (source,) = [c.source for c in lesson.cells if c.cell_type == "code" and "load_model(model_name)" in c.source]
    names = {"weights_dir": weights_dir, "Path": Path, "load_model": load_model, "count_parameters": count_parameters}
    with pytest.raises(AssertionError, match="uformer has no single mask"):
        exec(source, names | {"model_name": "uformer"})
    exec(source, names | {"model_name": "dccrn_e"})
