"""What widgets put on the page: pictures of a fixed size, players at the level the sound has, titles as text."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from dccrn_lib.lessons import panels


def test_a_picture_has_the_figures_inches_times_the_dots():
    figure = Figure(figsize=(4, 2))
    assert Image.open(io.BytesIO(panels.png(figure))).size == (360, 180)
    assert Image.open(io.BytesIO(panels.png(figure, dpi=50))).size == (200, 100)
    assert 'alt="&lt;b&gt;"' in panels.image_html(figure, "<b>")


def test_a_player_keeps_the_level_and_both_channels_and_shows_its_title_as_text():
    t = np.arange(8000) / 16000
    sound = np.stack([0.05 * np.sin(2 * np.pi * 440 * t), 0.4 * np.sin(2 * np.pi * 880 * t)]).astype(np.float32)
    page = panels.player_html(sound, 16000, "a < b & c")
    assert "<figcaption>a &lt; b &amp; c</figcaption>" in page
    data = base64.b64decode(page.split("base64,")[1].split('"')[0])
    heard, rate = soundfile.read(io.BytesIO(data))
    assert rate == 16000 and heard.shape == (8000, 2)
    assert np.allclose(np.abs(heard).max(axis=0), [0.05, 0.4], atol=0.03)


def test_a_rate_that_vorbis_cannot_hold_is_played_at_another():
    sound = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(35280) / 352800).astype(np.float32)
    page = panels.player_html(sound, 352800, "fast")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(page.split("base64,")[1].split('"')[0])))
    assert rate == 48000 and len(heard) == 4800 and np.abs(heard).max() == pytest.approx(0.3, abs=0.05)


def test_of_many_channels_two_are_played():
    """libsndfile's Vorbis encoder crashes on more than 255."""
    sound = np.zeros((256, 1600), np.float32)
    sound[1] = 0.5 * np.sin(np.arange(1600))
    page = panels.player_html(sound, 16000, "many")
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(page.split("base64,")[1].split('"')[0])))
    assert heard.shape == (1600, 2) and np.abs(heard).max(axis=0)[1] > 0.3


def test_a_long_sound_is_written_in_pieces(monkeypatch):
    """libsndfile's Vorbis encoder crashes on very long writes."""
    lengths, real = [], soundfile.SoundFile.write

    def watched(self, data):
        lengths.append(len(data))
        real(self, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", watched)
    panels.player_html(np.zeros(600_000, np.float32), 16000, "long")
    assert sum(lengths) == 600_000 and max(lengths) <= 1 << 18
