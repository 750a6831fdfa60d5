"""Pictures in notebooks: a palette PNG that fits, whatever is drawn."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dccrn_lib.lessons.plotting import DRAWING_BYTES, PICTURE_BYTES, bars, drawing, new_figure, picture, spectrograms


def test_a_noisy_spectrogram_fits():
    rng = np.random.default_rng(0)
    spectrum = rng.standard_normal((257, 400)) + 1j * rng.standard_normal((257, 400))
    data = picture(spectrograms({"noisy": spectrum, "clean": spectrum * 0.1}))
    assert len(data) <= PICTURE_BYTES
    image = Image.open(io.BytesIO(data))
    assert image.width > 1000


def test_the_palette_keeps_the_systems_colours():
    image = Image.open(io.BytesIO(picture(bars({"student": 1.0, "teacher": 2.0})))).convert("RGB")
    colours = {colour for count, colour in image.getcolors(1_000_000) if count > 500}
    for wanted in ((0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)):
        assert min(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) for c in colours) <= 8


def test_a_rare_colour_stays_itself():
    rng = np.random.default_rng(0)
    spectrum = rng.standard_normal((257, 400)) + 1j * rng.standard_normal((257, 400))
    figure = spectrograms({"noisy": spectrum, "clean": spectrum * 0.1})
    figure.axes[0].text(0.1, 1, "a word", color="#00a000", fontsize=20)
    pixels = np.asarray(Image.open(io.BytesIO(picture(figure))).convert("RGB")).astype(int)
    assert np.abs(pixels - (0x00, 0xA0, 0x00)).max(axis=-1).min() <= 20


def test_bars_are_drawn_and_images_are_not():
    svg = drawing(bars({"student": 1.0, "teacher": 2.0}))
    assert svg.startswith("<svg") and len(svg.encode()) <= DRAWING_BYTES
    assert svg == drawing(bars({"student": 1.0, "teacher": 2.0}))  # no date, no random names
    assert drawing(spectrograms({"noisy": np.ones((257, 10))})) is None


def test_a_drawing_that_is_too_large_becomes_a_picture():
    figure, axes = new_figure()
    axes[0, 0].plot(np.random.default_rng(0).standard_normal((30_000, 2)), ".")
    assert drawing(figure) is None and len(picture(figure)) <= PICTURE_BYTES
