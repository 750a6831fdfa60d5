"""Lesson 03's attention explorer: choose a frame, a band and a stream, and see where the frame looks."""

from __future__ import annotations

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from dccrn_lib.lessons.panels import png
from dccrn_lib.lessons.uformer.figures import FRAME_SECONDS
from dccrn_lib.lessons.uformer.figures_attention import attention_row
from dccrn_lib.networks.uformer import Uformer
from dccrn_lib.networks.uformer.attention import TRIPLES
from dccrn_lib.networks.uformer.inspection import attention_maps
from dccrn_lib.runtime.errors import ConfigError

BANDS = ("0-2 kHz", "2-4 kHz", "4-6 kHz", "6-8 kHz")
HEADS = ("magnitude", *TRIPLES)


def choose_map(maps: dict[str, dict[str, torch.Tensor]], head: str, band: int) -> np.ndarray:
    """One map over time, (frame, frame).

    Args:
        maps: of :func:`dccrn_lib.networks.uformer.inspection.attention_maps`.
        head: "magnitude", or a triple such as "rri" of the complex branch.
        band: 0 .. 3, the bottleneck's frequency bin.

    Raises:
        ConfigError: no such head or band.
    """
    if head not in HEADS:
        raise ConfigError(f"unknown head {head!r}; known: {', '.join(HEADS)}")
    if not 0 <= band < len(BANDS):
        raise ConfigError(f"band must be 0 .. {len(BANDS) - 1}, got {band}")
    if head == "magnitude":
        return maps["frame"]["magnitude"][band].numpy()
    return maps["frame"]["complex"][band, TRIPLES.index(head)].numpy()


def reading(weights: np.ndarray, frame: int) -> dict[str, float]:
    """What the row of a frame says in numbers.

    Args:
        weights: (frame, frame), rows sum to 1.
        frame: the asking frame.

    Returns:
        {"future": fraction of the weight on later frames, "within_50ms": fraction on the 5 frames either side and itself,
        "looked_at": the frame with the largest weight, "effective": frames it is spread over, exp(entropy)}.
    """
    row = np.asarray(weights, dtype=np.float64)[frame]
    row = row / row.sum()
    return {
        "future": float(row[frame + 1 :].sum()),
        "within_50ms": float(row[max(0, frame - 5) : frame + 6].sum()),
        "looked_at": int(row.argmax()),
        "effective": float(np.exp(-(row * np.log(np.maximum(row, 1e-12))).sum())),
    }


def sentence(weights: np.ndarray, frame: int) -> str:
    """:func:`reading` as one line."""
    r = reading(weights, frame)
    return (
        f"frame at {frame * FRAME_SECONDS:.2f} s: {100 * r['future']:.0f} % of the weight on later frames, "
        f"{100 * r['within_50ms']:.0f} % within 50 ms, most at {r['looked_at'] * FRAME_SECONDS:.2f} s, "
        f"spread over {r['effective']:.0f} of {len(weights)} frames"
    )


def draw(
    maps: dict[str, dict[str, torch.Tensor]],
    spectrum: np.ndarray,
    head: str = "magnitude",
    band: int = 0,
    frame: int = 100,
    level: np.ndarray | None = None,
) -> Figure:
    """The explorer's picture for one choice; also its static twin.

    Args:
        maps: of :func:`dccrn_lib.networks.uformer.inspection.attention_maps`.
        spectrum: complex (freq, frame), drawn above.
        head, band: see :func:`choose_map`.
        frame: the asking frame; cut to what there is.
        level: of each frame in dB, which marks the pauses; of ``spectrum`` by default.
    """
    weights = choose_map(maps, head, band)
    frame = min(max(frame, 0), len(weights) - 1)
    name = "magnitude stream" if head == "magnitude" else f"complex stream, {head}"
    title = f"{name}, {BANDS[band]}: where the frame at {frame * FRAME_SECONDS:.2f} s looks"
    level = frame_level(spectrum) if level is None else level
    return attention_row(weights, frame, level, spectrum, title)


def frame_level(spectrum: np.ndarray, floor: float = -60.0) -> np.ndarray:
    """Level of each frame in dB relative to the loudest, at least ``floor``: complex (freq, frame) -> (frame,)."""
    power = (np.abs(np.asarray(spectrum)) ** 2).sum(axis=0)
    return 10 * np.log10(np.maximum(power / max(power.max(), 1e-20), 10 ** (floor / 10)))


def attention_explorer(
    model: Uformer, spectrum: torch.Tensor, frame: int = 100, level: np.ndarray | None = None
) -> ipywidgets.Widget:
    """Move a frame through a sentence and watch where it looks.

    Args:
        model: with attention, in eval mode.
        spectrum: complex (1, freq, frame).
        frame: at the start.
        level: of each frame in dB, which marks the pauses; of ``spectrum`` by default.
    """
    maps, shown = attention_maps(model, spectrum), spectrum[0].numpy()
    last = spectrum.shape[-1] - 1
    wide = ipywidgets.Layout(width="95%")
    slider = ipywidgets.IntSlider(
        min(frame, last), 0, last, 1, description="frame", continuous_update=False, layout=wide
    )
    head = ipywidgets.Dropdown(options=HEADS, description="head")
    band = ipywidgets.Dropdown(options=[(name, i) for i, name in enumerate(BANDS)], description="band")
    picture, words = ipywidgets.Image(format="png"), ipywidgets.Label()

    def update(_change=None) -> None:
        # a Dropdown with options always has a value
        words.value = sentence(choose_map(maps, head.value, band.value), slider.value)  # pyright: ignore[reportArgumentType]
        # a Dropdown with options always has a value
        picture.value = png(draw(maps, shown, head.value, band.value, slider.value, level))  # pyright: ignore[reportArgumentType]

    for control in (slider, head, band):
        control.observe(update, names="value")
    update()
    return ipywidgets.VBox([ipywidgets.HBox([head, band], layout={"flex_flow": "row wrap"}), slider, words, picture])
